from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from loramill.config.keys import iter_keys
from loramill.config.load import dump_config, load_config, parse_config, parse_overrides, parse_value, read_yaml
from loramill.config.schema import ExperimentConfig
from loramill.errors import ConfigError

SHIPPED = sorted((Path(__file__).parents[2] / "config").glob("*.yaml"))

SIX_MISTAKES = """
experiment_name: ../escape
model:
  nam: distilbert-base-uncased
lora:
  r: 0
  bias: some
training:
  learning_rat: 0.001
  num_train_epochs: many
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_six_configs_are_shipped() -> None:
    names = ["albert", "bert_chinese", "default", "distilbert_optimized", "quickstart", "roberta"]
    assert [path.stem for path in SHIPPED] == names


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_config_loads_and_survives_a_round_trip(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    assert load_config(write(tmp_path, dump_config(config))) == config


def test_the_default_config_is_the_one_promised() -> None:
    config = load_config(next(path for path in SHIPPED if path.stem == "default"))
    assert config.model.name == "distilbert-base-uncased"
    assert (config.data.dataset_name, config.data.dataset_config) == ("glue", "sst2")
    assert (config.lora.r, config.lora.lora_alpha, config.lora.lora_dropout) == (8, 16, 0.1)
    assert config.lora.target_modules == ["q_lin", "v_lin"]
    assert config.training.learning_rate == 5e-4
    assert (config.training.num_train_epochs, config.training.per_device_train_batch_size) == (1, 2)


def test_six_mistakes_are_six_problems_each_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, SIX_MISTAKES))
    found = {problem.key: problem for problem in caught.value.problems}
    assert len(caught.value.problems) == len(found) == 6
    assert {key: problem.value for key, problem in found.items()} == {
        "experiment_name": "../escape",
        "model.nam": "distilbert-base-uncased",
        "lora.r": 0,
        "lora.bias": "some",
        "training.learning_rat": 0.001,
        "training.num_train_epochs": "many",
    }
    assert found["lora.r"].message == "must be at least 1, not 0"
    assert found["lora.bias"].message == "must be 'none', not 'some'"
    assert found["training.num_train_epochs"].message == "must be a number, not 'many'"
    assert "letters, digits" in found["experiment_name"].message
    assert found["model.nam"].suggestion == "model.name"
    assert found["training.learning_rat"].suggestion == "training.learning_rate"
    assert str(caught.value).startswith(f"{tmp_path / 'config.yaml'}: 6 problems\n")
    assert "training.learning_rat: unknown key (did you mean training.learning_rate?)" in str(caught.value)


def test_mistakes_of_file_and_overrides_are_reported_together(tmp_path: Path) -> None:
    path = write(tmp_path, "lora: {r: 0}\ntraining: {seed: 1.5}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, {"training.device": "gpu", "lora.alpha": 3})
    keys = [problem.key for problem in caught.value.problems]
    assert sorted(keys) == ["lora.alpha", "lora.r", "training.device", "training.seed"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: [1, 2", "is not YAML"),
        ("- a\n- b\n", "must be a mapping of sections"),
        ("just text", "must be a mapping of sections"),
        ("lora: {r: 4}\nlora: {r: 8}\n", "the key 'lora' is there twice"),
        ("lora:\n  r: 4\n  r: 8\n", "the key 'r' is there twice at line 3, column 3"),
        ("model:\n  name: {{ base }}\n", "is not YAML"),
        ("experiment_name: 2026-02-31\n", "is not YAML"),
        ("a: &a [x]\nb: !!python/object/apply:os.system ['true']\n", "is not YAML"),
        ("[" * 5000, "is nested too deeply"),
    ],
)
def test_a_file_that_is_no_config_says_so(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_yaml(write(tmp_path, text))


@pytest.mark.parametrize("entry", ["no", "'no'", "false"])
def test_no_evaluation_is_said_as_transformers_says_it(tmp_path: Path, entry: str) -> None:
    path = write(tmp_path, f"training:\n  eval_strategy: {entry}\n")
    assert load_config(path).training.eval_strategy == "no"
    assert load_config(None, parse_overrides([f"eval_strategy={entry}"])).training.eval_strategy == "no"


@pytest.mark.parametrize(
    ("entry", "trackers"),
    [
        ("tensorboard", ["tensorboard"]),
        ("[mlflow, wandb]", ["mlflow", "wandb"]),
        ("mlflow, wandb", ["mlflow", "wandb"]),
        ("none", []),
        ("[none]", []),
    ],
)
def test_trackers_are_named_as_transformers_names_them(tmp_path: Path, entry: str, trackers: list[str]) -> None:
    assert load_config(write(tmp_path, f"training:\n  report_to: {entry}\n")).training.report_to == trackers
    assert load_config(None, parse_overrides([f"report_to={entry}"])).training.report_to == trackers


def test_a_missing_file_names_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "default.yaml").touch()
    with pytest.raises(ConfigError, match=r"no such file \(did you mean default.yaml\?\)"):
        load_config(tmp_path / "defualt.yaml")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00bad", b"\x00"])
def test_bytes_that_are_no_text_are_a_problem_too(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        load_config(path)


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "# nothing\n")) == load_config(None) == ExperimentConfig()


def test_a_config_never_changes() -> None:
    with pytest.raises(ValueError, match="frozen"):
        ExperimentConfig().lora.r = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("assignment", "key", "value"),
    [
        ("lora.r=16", "lora.r", 16),
        ("learning-rate=1e-3", "training.learning_rate", 1e-3),
        ("epochs=3", "training.num_train_epochs", 3),
        ("device=cpu", "training.device", "cpu"),
        ("lora.target_modules=[query, value]", "lora.target_modules", ["query", "value"]),
        ("data.text_column=null", "data.text_column", None),
        ("experiment_name=2026", "experiment_name", "2026"),
        ("text_column=1e3", "data.text_column", "1e3"),
        ("data.dataset_name=a=b", "data.dataset_name", "a=b"),
        ("made_up=1", "made_up", 1),
    ],
)
def test_an_override_is_read_as_yaml_under_its_full_key(assignment: str, key: str, value: object) -> None:
    assert parse_overrides([assignment]) == {key: value}


def test_every_assignment_without_a_value_is_reported() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_overrides(["lora.r", "=3", "epochs=1"])
    assert [problem.key for problem in caught.value.problems] == ["lora.r", "=3"]


def test_an_override_does_not_hide_a_broken_section(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lora: must be a section with keys of its own, not 5"):
        load_config(write(tmp_path, "lora: 5\n"), {"lora.r": 4})


@given(st.lists(st.text()))
def test_overrides_of_any_text_are_read_or_reported(assignments: list[str]) -> None:
    try:
        overrides = parse_overrides(assignments)
    except ConfigError as error:
        assert error.problems
    else:
        assert len(overrides) <= len(assignments)


@given(st.dictionaries(st.sampled_from([key for key, _ in iter_keys()]), st.text(max_size=20)))
def test_overrides_of_any_value_give_a_config_or_problems_with_these_keys(values: dict[str, str]) -> None:
    overrides = {key: parse_value(text, key) for key, text in values.items()}
    try:
        config = load_config(None, overrides)
    except ConfigError as error:
        assert {problem.key for problem in error.problems} <= set(overrides) | {"training.early_stopping_patience"}
    else:
        assert parse_config(yaml.safe_load(dump_config(config))) == config


@given(
    st.integers(1, 1024),
    st.floats(1e-12, 1, exclude_min=True),
    st.text(alphabet="abcXYZ018_", min_size=1, max_size=30).filter(lambda name: name[0] != "_"),
)
def test_what_is_set_is_what_is_trained_with(rank: int, rate: float, name: str) -> None:
    assignments = [f"lora.r={rank}", f"learning_rate={rate!r}", f"experiment_name={name}"]
    config = load_config(None, parse_overrides(assignments))
    assert (config.lora.r, config.training.learning_rate, config.experiment_name) == (rank, rate, name)
