"""The examples run as they stand, on fewer rows; ``tests/e2e/test_service.py`` runs the one that needs a service."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
ROWS = 64


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORAMILL_HOME", str(tmp_path))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    return tmp_path


def main_of(name: str) -> Callable[..., None]:
    (file,) = [file for file in EXAMPLES if file.stem == name]
    main: Callable[..., None] = runpy.run_path(str(file))["main"]
    return main


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: str(file.stem))
def test_an_example_is_short_and_says_how_it_is_started(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    assert f".venv/bin/python examples/{file.name}" in text


@pytest.mark.slow
def test_training_from_python_is_recorded_and_predicts(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main_of("01_train")(ROWS)
    lines = capsys.readouterr().out.splitlines()
    (folder,) = (home / "results").glob("example_*")
    assert f"{folder}: accuracy 0." in "\n".join(lines)
    assert lines[-1].endswith("A dull, endless mess.")


def test_a_data_set_is_checked_cleaned_and_kept(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"a warm and funny film {number},1\na dull and lifeless film {number},0" for number in range(10)]
    (home / "reviews.csv").write_text("\n".join(["text,label", *rows, "no,1", "a warm and funny film 3,1"]) + "\n")
    main_of("02_check_data")(str(home / "reviews.csv"))
    printed = capsys.readouterr().out
    assert "text_too_short, row 20: 'no'" in printed
    assert "2 changes: {" in printed
    assert "train: 20 rows; train on them with --dataset_name version:" in printed


@pytest.mark.slow
def test_a_sweep_from_python_registers_its_best(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main_of("03_sweep")(ROWS)
    *trials, last = capsys.readouterr().out.splitlines()
    assert len(trials) == len(list((home / "results").glob("example_*"))) == 4
    assert trials[0].split()[0] in last
