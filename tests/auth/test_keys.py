from __future__ import annotations

import multiprocessing
import secrets
import stat
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from loramill.auth.keys import audit_key, load_or_create_key, require_strong_secret, secret_weakness, signing_secret
from loramill.errors import ConfigError, StorageError
from loramill.settings import Settings

WEAK = [
    "",
    "secret",
    "x" * 31,
    "x" * 64,
    "0123456789" * 3,
    "abababababababababababababababababababab",
    "change-me-change-me-change-me-change-me",
    "CHANGE_ME_BEFORE_DEPLOYING_TO_PRODUCTION_1234",
    "your-256-bit-secret-your-256-bit-secret",
    "a-string-secret-at-least-256-bits-long",
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    "this-is-an-example-key-of-some-length-0123",
    "my-Pass-Word-is-long-enough-but-not-random-77",
]


@pytest.mark.parametrize("secret", WEAK)
def test_weak_secrets_are_refused_in_production_and_never_shown(secret: str, settings: Callable[..., Settings]) -> None:
    with pytest.raises(ConfigError) as caught:
        require_strong_secret(settings(environment="production", jwt_secret=secret))
    assert caught.value.problems[0].key == "JWT_SECRET"
    assert len(secret) < 10 or secret not in str(caught.value)


def test_production_does_not_make_up_a_secret(settings: Callable[..., Settings]) -> None:
    with pytest.raises(ConfigError, match="is not set"):
        signing_secret(settings(environment="production"))


def test_random_secrets_are_good_in_every_usual_spelling(settings: Callable[..., Settings]) -> None:
    for _ in range(200):
        for secret in (secrets.token_urlsafe(32), secrets.token_hex(32), secrets.token_urlsafe(24)):
            assert secret_weakness(secret) is None
    good = secrets.token_urlsafe(48)
    assert signing_secret(settings(environment="production", jwt_secret=good)) == good


def test_a_machine_of_ones_own_keeps_a_random_secret_that_nobody_else_reads(
    settings: Callable[..., Settings], tmp_path: Path
) -> None:
    first = signing_secret(settings())
    file = tmp_path / ".loramill" / "jwt_secret"
    assert secret_weakness(first) is None
    assert signing_secret(settings()) == first == file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert audit_key(settings()) != first


def test_given_keys_are_used_and_nothing_is_written(settings: Callable[..., Settings], tmp_path: Path) -> None:
    known = settings(jwt_secret="given for tokens", audit_key="given for the log")
    assert (signing_secret(known), audit_key(known)) == ("given for tokens", "given for the log")
    assert not (tmp_path / ".loramill").exists()


def test_processes_that_start_together_get_one_key(tmp_path: Path) -> None:
    paths = [tmp_path / "home" / "key"] * 16
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("fork")) as pool:
        keys = set(pool.map(load_or_create_key, paths))
    assert len(keys) == 1
    assert [path.name for path in paths[0].parent.iterdir()] == ["key"], "no staged file is left"


def test_a_folder_that_cannot_be_written_is_named() -> None:
    blocked = Path("/proc/loramill/key")
    with pytest.raises(StorageError, match=str(blocked)):
        load_or_create_key(blocked)
