from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import run_folders
from loramill.experiments.folder import ExperimentFolder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def make_run(results: Path) -> Callable[..., ExperimentFolder]:
    """``run_folders.make_run`` in this test's results, each run a second after the one before."""
    numbers = itertools.count()

    def make(*arguments: Any, **options: Any) -> ExperimentFolder:
        return run_folders.make_run(results, *arguments, number=next(numbers), **options)

    return make
