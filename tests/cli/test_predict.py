from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from loramill.cli.predict import app
from loramill.config.schema import ExperimentConfig
from loramill.database import Database
from loramill.errors import ConfigError, NotFoundError
from loramill.experiments.registry import ModelRegistry
from loramill.experiments.store import ExperimentStore, NewExperiment
from loramill.inference.predictor import Predictor
from served_models import Experiments, drawn_adapter
from small_models import save_small_model

TEXTS = ["a b c", "z z z z", "x y"]


@pytest.fixture(scope="module")
def small_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model("bert", tmp_path_factory.mktemp("small_bert"))


@pytest.fixture
def experiments(home: Path, small_bert: Path) -> Experiments:
    results = home / "results"
    results.mkdir()
    return Experiments(results, small_bert)


def run(*arguments: str, typed: str = "") -> str:
    result = CliRunner().invoke(app, [*arguments], input=typed, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def predict(*arguments: str, typed: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run(*arguments, "--json", typed=typed))
    return found


def test_json_is_the_reply_of_the_service_with_logits(experiments: Experiments) -> None:
    folder = experiments.save("run", drawn_adapter(experiments.base, 3))
    found = predict("run", *TEXTS)
    expected = Predictor.open(folder).predict(TEXTS)
    assert [one["logits"] for one in found] == [one.logits.tolist() for one in expected]
    assert [one["label"] for one in found] == [one.answer.label for one in expected]
    keys = {"label", "probability", "latency_ms", "base_model", "language", "label_name", "experiment_id"}
    assert keys <= set(found[0])
    assert {(one["experiment_id"], one["base_model"]) for one in found} == {("run", str(experiments.model))}


def test_people_get_a_line_for_each_text(experiments: Experiments) -> None:
    experiments.save_constant("run", 2)
    assert run("latest", "a b", "x" * 100) == f"class 2 (1.0000)  a b\nclass 2 (1.0000)  {'x' * 77}...\n"


def test_other_kinds_of_labels_for_people(experiments: Experiments) -> None:
    score = drawn_adapter(experiments.base, 6, labels=1)
    experiments.save("score", score, problem_type="regression", label_names=[])
    value = predict("score", "a")[0]["label"]
    assert run("score", "a") == f"{value:.4g}  a\n"
    topics = drawn_adapter(experiments.base, 6)
    topics.values.data.zero_()
    experiments.save("topics", topics, problem_type="multi_label_classification")
    assert run("topics", "a") == "no label  a\n"


def test_a_warning_goes_to_standard_error_once(experiments: Experiments) -> None:
    experiments.save_constant("run", 2)
    result = CliRunner().invoke(app, ["run", "很好看", "不好看"])
    assert result.stderr.count("written in Chinese") == 1
    assert "warning" not in result.stdout


def test_texts_of_a_file(experiments: Experiments, tmp_path: Path) -> None:
    experiments.save("run", drawn_adapter(experiments.base, 3))
    expected = [one["logits"] for one in predict("run", *TEXTS)]
    plain = tmp_path / "texts.txt"
    plain.write_text("\ufeff" + "\r\n".join([*TEXTS, "", " "]), encoding="utf-8")
    lines = tmp_path / "texts.jsonl"
    lines.write_text("\n".join(json.dumps({"text": text, "label": 1}) for text in TEXTS), encoding="utf-8")
    for found in (
        predict("run", "--file", str(plain)),
        predict("run", "--file", str(lines)),
        predict("run", "--file", "-", typed="\n".join(TEXTS)),
        predict("run", TEXTS[0], "--file", str(plain))[1:],
    ):
        np.testing.assert_allclose([one["logits"] for one in found], expected, rtol=0, atol=1e-5)


def test_a_text_of_a_file_ends_where_its_line_ends(experiments: Experiments, tmp_path: Path) -> None:
    experiments.save("run", drawn_adapter(experiments.base, 3))
    texts = ["a\u2028b", "a\x0cb\x0b\x85c"]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name in ("texts.txt", "texts.jsonl"):
        assert len(predict("run", "--file", str(tmp_path / name))) == len(texts)


def test_pairs_of_a_file(experiments: Experiments, tmp_path: Path) -> None:
    folder = experiments.save("run", drawn_adapter(experiments.base, 3))
    pairs = ["d", "e f", "g"]
    rows = [{"text": text, "text_pair": pair} for text, pair in zip(TEXTS, pairs, strict=True)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    expected = Predictor.open(folder).predict(TEXTS, pairs)
    assert [one["logits"] for one in predict("run", "--file", str(file))] == [one.logits.tolist() for one in expected]


def test_lines_at_fault_are_all_named(experiments: Experiments, tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text(
        '{"text": "a"}\n{"txt": "b"}\n"c"\n{\n["d", "e"]\n{"text": "f", "text_pair": 5}\n', encoding="utf-8"
    )
    with pytest.raises(ConfigError) as caught:
        run("run", "--file", str(file))
    assert [problem.key for problem in caught.value.problems] == [f"{file}:{number}" for number in (2, 4, 6)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "at least one text"),
        ([" "], "is empty"),
        (["--file", "nowhere.txt"], "cannot be read"),
    ],
)
def test_nothing_to_classify_is_said_before_a_model_is_loaded(home: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run("run", *arguments)


def test_pairs_and_single_texts_do_not_mix(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('["a", "b"]\n"c"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="every row needs one"):
        run("run", "--file", str(file))


def test_an_alias_and_a_stage_of_the_registry(experiments: Experiments, home_database: Database) -> None:
    for answer, name in enumerate(("a", "b")):
        experiments.save_constant(name, answer)
        with home_database.transaction() as session:
            store = ExperimentStore(session)
            store.create(NewExperiment.from_config(name, ExperimentConfig()))
            store.mark_finished(name, {"eval": {"accuracy": 1.0}})
    with home_database.transaction() as session:
        ModelRegistry(session).set_alias("reviews", "a", by="test")
        ModelRegistry(session).set_stage("a", "production", by="test")
    assert [predict(name, "x")[0]["experiment_id"] for name in ("reviews", "production")] == ["a", "a"]
    with home_database.transaction() as session:
        ModelRegistry(session).set_alias("production", "b", by="test")
    assert predict("production", "x")[0]["experiment_id"] == "b"
    with pytest.raises(NotFoundError):
        predict("other", "x")


def test_an_unknown_id_fails_and_leaves_no_database_behind(home: Path) -> None:
    with pytest.raises(NotFoundError):
        run("none", "x")
    assert not (home / "results").exists()


def test_the_command_imports_nothing_heavy_but_torch(experiments: Experiments) -> None:
    experiments.save_constant("run", 2)
    script = (
        "import sys; from loramill.cli.predict import app; app(['run', 'a'], standalone_mode=False); "
        "print(sorted({'transformers', 'peft', 'sqlalchemy', 'pyarrow', 'fastapi', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
