from __future__ import annotations

from pathlib import Path

import pytest

from served_models import Experiments
from small_models import save_small_model


@pytest.fixture(scope="session")
def small_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model("bert", tmp_path_factory.mktemp("small_bert"))


@pytest.fixture
def experiments(tmp_path: Path, small_bert: Path) -> Experiments:
    """An empty results folder."""
    results = tmp_path / "results"
    results.mkdir()
    return Experiments(results, small_bert)
