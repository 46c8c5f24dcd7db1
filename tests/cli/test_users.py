from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loramill.auth.authentication import Authentication
from loramill.auth.models import Role
from loramill.cli.users import app
from loramill.database import Database
from loramill.errors import ConfigError, ConflictError, LoginFailedError, NotFoundError
from loramill.settings import Settings

PASSWORD = "correct horse battery"
COMMAND = [sys.executable, "-c", "from loramill.cli.main import main; main()", "users"]


def run(*arguments: str, typed: str = "") -> str:
    """What a command prints on stdout; its errors are raised."""
    result = CliRunner().invoke(app, [*arguments], input=typed, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def listed() -> list[tuple[str, str, str, bool]]:
    users = json.loads(run("list", "--json"))["users"]
    return [(user["user_id"], user["username"], user["role"], user["disabled"]) for user in users]


@pytest.fixture
def auth(home_database: Database) -> Authentication:
    return Authentication.from_settings(Settings.load(), home_database)


def test_users_are_created_with_a_password_from_standard_input(auth: Authentication) -> None:
    assert run("create-admin", "root", typed=f"{PASSWORD}\n") == "root (u1) may sign in as admin\n"
    run("create", "Ada", typed=f"{PASSWORD} too\r\n")
    assert listed() == [("u1", "root", "admin", False), ("u2", "ada", "user", False)]
    assert auth.sign_in("root", PASSWORD, address="192.0.2.1").role == Role.ADMIN
    assert auth.sign_in("ada", f"{PASSWORD} too", address="192.0.2.1").role == Role.USER
    assert "root" in run("list")


def test_a_password_from_the_environment(auth: Authentication, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAMILL_ADMIN_USER", "root")
    monkeypatch.setenv("LORAMILL_ADMIN_PASSWORD", PASSWORD)
    run("create-admin")
    monkeypatch.setenv("LORAMILL_NEW_PASSWORD", f"{PASSWORD} again")
    run("create", "ada", "--role", "admin")
    assert listed() == [("u1", "root", "admin", False), ("u2", "ada", "admin", False)]
    auth.sign_in("root", PASSWORD, address="192.0.2.1")
    auth.sign_in("ada", f"{PASSWORD} again", address="192.0.2.1")


@pytest.mark.parametrize("typed", ["", "\n", "short\n", "x" * 2000 + "\n"])
def test_a_bad_password_makes_no_user(typed: str, home: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        run("create", "ada", typed=typed)
    assert caught.value.problems[0].key == "password"
    assert listed() == []


def test_a_bad_name_is_refused_before_a_password_is_asked(home: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        run("create", "a b", typed="")
    assert caught.value.problems[0].key == "username"


def test_disable_enable_role_and_password(auth: Authentication) -> None:
    for name in ("root", "ada"):
        run("create-admin", name, typed=f"{PASSWORD}\n")
    assert run("disable", "u2") == "ada (u2) is disabled\n"
    with pytest.raises(LoginFailedError):
        auth.sign_in("ada", PASSWORD, address="192.0.2.1")
    run("enable", "ada")
    auth.sign_in("ada", PASSWORD, address="192.0.2.1")
    run("set-role", "ada", "user")
    assert listed()[1] == ("u2", "ada", "user", False)
    run("set-password", "ada", typed="a whole new password\n")
    with pytest.raises(LoginFailedError):
        auth.sign_in("ada", PASSWORD, address="192.0.2.1")
    auth.sign_in("ada", "a whole new password", address="192.0.2.1")


def test_what_cannot_be_done_says_why(home: Path) -> None:
    run("create-admin", "root", typed=f"{PASSWORD}\n")
    with pytest.raises(ConflictError, match="last administrator"):
        run("disable", "root")
    with pytest.raises(ConflictError):
        run("create", "root", typed=f"{PASSWORD}\n")
    with pytest.raises(NotFoundError):
        run("enable", "ada")


def test_every_change_is_in_the_audit_log_and_no_password(auth: Authentication) -> None:
    run("create-admin", "root", typed=f"{PASSWORD}\n")
    run("create-admin", "ada", typed=f"{PASSWORD}\n")
    run("set-role", "ada", "user")
    run("set-password", "ada", typed=f"{PASSWORD} new\n")
    run("disable", "ada")
    with pytest.raises(ConflictError):
        run("disable", "root")
    entries = [*reversed(auth.audit.query(role="admin"))]
    assert [(entry.action, entry.target, entry.result) for entry in entries] == [
        ("user.create", "root", "ok"),
        ("user.create", "ada", "ok"),
        ("user.set_role.user", "u2", "ok"),
        ("user.set_password", "u2", "ok"),
        ("user.disable", "u2", "ok"),
        ("user.disable", "u1", "conflict"),
    ]
    assert {entry.user_id for entry in entries} == {entries[0].user_id}
    assert str(entries[0].user_id).startswith("local:")
    assert PASSWORD not in str(entries)


def test_no_command_takes_a_password_as_an_argument(home: Path) -> None:
    for name in ("create-admin", "create", "set-password"):
        assert "--password" not in run(name, "--help")


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo terminal")
def test_at_a_terminal_the_password_is_asked_twice_and_never_shown(auth: Authentication) -> None:
    leader, follower = pty.openpty()
    command = subprocess.Popen([*COMMAND, "create", "ada"], stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    shown = b""
    for _ in range(2):
        while not shown.endswith(b": "):
            shown += os.read(leader, 1024)
        os.write(leader, f"{PASSWORD}\n".encode())
        shown += os.read(leader, 1024)
    while b"may sign in" not in shown:
        shown += os.read(leader, 1024)
    assert command.wait() == 0
    os.close(leader)
    assert PASSWORD.encode() not in shown
    assert shown.startswith(b"Password: \r\nRepeat for confirmation: \r\n")
    auth.sign_in("ada", PASSWORD, address="192.0.2.1")


def test_errors_leave_as_a_sentence_and_an_exit_code(home: Path) -> None:
    wrong = subprocess.run([*COMMAND, "create", "a b"], capture_output=True, text=True, input="", check=False)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "username" in wrong.stderr
    missing = subprocess.run([*COMMAND, "disable", "nobody"], capture_output=True, text=True, input="", check=False)
    assert missing.returncode == 1
    assert missing.stderr.startswith("error [not_found]")
