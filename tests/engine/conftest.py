"""Small random models of every family."""

from __future__ import annotations

from pathlib import Path

import pytest

from small_models import CONFIGS, save_small_model


@pytest.fixture(scope="session", params=sorted(CONFIGS))
def small_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for each family."""
    return save_small_model(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def small_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model("bert", tmp_path_factory.mktemp("small_bert"))
