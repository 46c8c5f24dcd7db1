from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from loramill.cli.config import app, describe_default, describe_type
from loramill.config.keys import iter_keys
from loramill.config.load import load_config
from loramill.config.schema import ExperimentConfig
from loramill.errors import ConfigError

QUICKSTART = Path(__file__).parents[2] / "config" / "quickstart.yaml"


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_schema_lists_every_key_with_type_default_and_description() -> None:
    shown = run("schema")
    for key, field in iter_keys():
        line = next(line for line in shown.splitlines() if f" {key} " in line)
        assert describe_type(field) in line
        assert describe_default(field) in line
        assert (field.description or "").split()[0] in line


@pytest.mark.parametrize(
    ("key", "kind", "default"),
    [
        ("lora.r", "integer, 1 to 1024", "8"),
        ("lora.lora_alpha", "number, above 0", "16"),
        ("lora.lora_dropout", "number, 0.0 to below 1.0", "0.1"),
        ("lora.target_modules", "auto | list of text", "auto"),
        ("model.num_labels", "integer, 1 to 10000", "-"),
        ("data.train_samples", "integer, 1 or more", "-"),
        ("data.text_column", "text", "-"),
        ("training.bf16", "auto | true | false", "auto"),
        ("training.report_to", "list of mlflow | tensorboard | wandb", "[]"),
        ("training.eval_strategy", "no | steps | epoch", "epoch"),
    ],
)
def test_types_are_said_in_the_words_of_yaml(key: str, kind: str, default: str) -> None:
    field = dict(iter_keys())[key]
    assert (describe_type(field), describe_default(field)) == (kind, default)


def test_the_json_schema_accepts_good_configs_and_refuses_bad_ones() -> None:
    schema = json.loads(run("schema", "--json"))
    jsonschema.validate(load_config(QUICKSTART).model_dump(mode="json"), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"lora": {"rank": 8}}, schema)


def test_show_prints_a_config_that_means_the_same(tmp_path: Path) -> None:
    (tmp_path / "full.yaml").write_text(run("show", str(QUICKSTART)), encoding="utf-8")
    assert load_config(tmp_path / "full.yaml") == load_config(QUICKSTART)


def test_show_without_a_file_prints_the_defaults() -> None:
    assert ExperimentConfig.model_validate(yaml.safe_load(run("show"))) == ExperimentConfig()
    assert json.loads(run("show", "--json")) == ExperimentConfig().model_dump(mode="json")


def test_flags_and_assignments_change_what_is_shown() -> None:
    flags = ["--learning-rate", "1e-3", "--epochs", "3", "--device", "cpu", "--experiment_name", "2026"]
    shown = yaml.safe_load(run("show", str(QUICKSTART), *flags, "--set", "lora.r=4", "--set", "data.train_samples=9"))
    assert shown["training"]["learning_rate"] == 1e-3
    assert shown["training"]["num_train_epochs"] == 3
    assert shown["training"]["device"] == "cpu"
    assert shown["experiment_name"] == "2026"
    assert shown["lora"]["r"] == 4
    assert shown["data"]["train_samples"] == 9


def test_problems_of_flags_file_and_assignments_come_together(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("lora: {r: 0}\n")
    arguments = ["show", str(tmp_path / "bad.yaml"), "--learning-rate", "fast", "--set", "lora.alpha=3"]
    with pytest.raises(ConfigError) as caught:
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert {problem.key for problem in caught.value.problems} == {"lora.r", "lora.alpha", "training.learning_rate"}
