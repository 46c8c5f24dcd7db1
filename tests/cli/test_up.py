from __future__ import annotations

import pytest

from loramill.auth.models import Role
from loramill.auth.users import UserStore
from loramill.cli.up import say_ready
from loramill.database import Database


def test_whoever_cannot_sign_in_yet_is_told_how(home_database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    say_ready(home_database)
    said = capsys.readouterr()
    assert said.out == "ready\n"
    assert "loramill users create-admin" in said.err
    with home_database.transaction() as session:
        UserStore(session).create("root", password_hash="", role=Role.ADMIN)
    say_ready(home_database)
    assert capsys.readouterr() == ("ready\n", "")
