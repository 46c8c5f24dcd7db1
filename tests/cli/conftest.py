from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from loramill.database import Database
from loramill.settings import Settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ``LORAMILL_HOME``; nothing else of the machine's environment is seen."""
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.alias), raising=False)
    monkeypatch.setenv("LORAMILL_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def home_database(home: Path) -> Iterator[Database]:
    """The database that the commands use."""
    database = Database(Settings.load().effective_database_url)
    database.upgrade()
    yield database
    database.close()
