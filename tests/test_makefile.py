"""Targets that do more than call a command: what they look at, and what they ask for."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAMPS = ("python", "torch", "run")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A fresh copy in which all is installed, with a `loramill` that prints what it is asked for."""
    folder = tmp_path / "checkout"
    for part in ("deploy", "requirements"):
        shutil.copytree(ROOT / part, folder / part, copy_function=shutil.copy)
    for file in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / file, folder)
    command = folder / ".venv" / "bin" / "loramill"
    command.parent.mkdir(parents=True)
    command.write_text('#!/bin/sh\necho "$@"\n')
    command.chmod(0o755)
    for stamp in STAMPS:
        (folder / ".venv" / f".installed-{stamp}").touch()
    return folder


def make(folder: Path, *arguments: str, **environment: str) -> str:
    command = ["make", "--no-print-directory", *arguments]
    variables = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=True).stdout


def test_a_home_that_dotenv_names_is_where_logs_are_read_and_analyses_written(checkout: Path, tmp_path: Path) -> None:
    for name, line in (("home", "of the file"), ("other", "of the environment")):
        log = tmp_path / name / "results" / "run_20260101_120000" / "logs.txt"
        log.parent.mkdir(parents=True)
        log.write_text(f"{line}\n")
    (checkout / ".env").write_text(f'export LORAMILL_HOME="{tmp_path}/home" # not here\n')
    assert "of the file" in make(checkout, "logs-local")
    assert f"--csv {tmp_path}/home/results/analysis/model.csv" in make(checkout, "analyze-by-model")
    assert "of the environment" in make(checkout, "logs-local", LORAMILL_HOME=f"{tmp_path}/other")
