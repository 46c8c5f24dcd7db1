from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from loramill.auth.keys import signing_secret
from loramill.auth.models import Role, User
from loramill.auth.tokens import AccessTokens
from loramill.database import Database
from loramill.errors import AuthenticationError, LoramillError, PermissionDeniedError, TokenInvalidError
from loramill.inference.access import Access, Request, inference_key, is_loopback, open_access
from loramill.settings import Settings

LOCAL = {"host": "127.0.0.1:8002"}


def refusal(access: Access, request: Request) -> type[LoramillError] | None:
    """The kind of error that a request gets; ``None`` when it is let in."""
    try:
        asyncio.run(access.check(request))
    except LoramillError as error:
        return type(error)
    return None


def request(method: str = "POST", path: str = "/predict", **headers: str) -> Request:
    return Request(method, path, {**LOCAL, **{name.replace("_", "-"): value for name, value in headers.items()}})


def test_without_a_key_nobody_signs_in() -> None:
    access = Access()
    assert refusal(access, request()) is None
    assert refusal(access, request(path="/models/a/load")) is None


@pytest.mark.parametrize("headers", [{"authorization": "Bearer s3cret"}, {"x_api_key": "s3cret"}])
def test_the_key_opens_everything(headers: dict[str, str]) -> None:
    access = Access("s3cret")
    assert refusal(access, request(**headers)) is None
    assert refusal(access, request(path="/models/a/unload", **headers)) is None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic s3cret"},
        {"authorization": "Bearer"},
        {"x_api_key": "s3cre"},
        {"x_api_key": "schlüssel"},
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/models", "/v2/models/a/infer", "/metrics", "/models/a/load"])
def test_a_wrong_key_opens_nothing(headers: dict[str, str], path: str) -> None:
    assert refusal(Access("s3cret"), request(path=path, **headers)) == AuthenticationError


@pytest.mark.parametrize("path", ["/health", "/health/live", "/v2/health/ready", "/docs", "/openapi.json"])
def test_probes_need_no_key(path: str) -> None:
    assert refusal(Access("s3cret"), request("GET", path)) is None


def test_tokens_of_the_api(tmp_path: Path) -> None:
    roles = {"admin's token": True, "user's token": False}
    asked: list[str] = []

    def is_admin(token: str) -> bool:
        asked.append(token)
        if token not in roles:
            raise TokenInvalidError("no")
        return roles[token]

    access = Access("s3cret", is_admin)
    for token, admin in roles.items():
        assert refusal(access, request(authorization=f"Bearer {token}")) is None
        assert refusal(access, request("GET", "/models", authorization=f"Bearer {token}")) is None
        expected = None if admin else PermissionDeniedError
        assert refusal(access, request("POST", "/models/a/switch", authorization=f"Bearer {token}")) == expected
    assert refusal(access, request(authorization="Bearer other")) == TokenInvalidError
    assert asked == [*roles, "other"], "a good token is not looked up for every request"


def test_a_page_of_another_site_cannot_use_a_local_service() -> None:
    access = Access(local_only=True)
    assert refusal(access, request(origin="http://127.0.0.1:8501")) is None
    assert refusal(access, request(origin="https://evil.example")) == PermissionDeniedError
    assert refusal(access, request(origin="null")) == PermissionDeniedError
    rebound = Request("POST", "/models/a/unload", {"host": "evil.example:8002", "origin": "http://evil.example:8002"})
    assert refusal(access, rebound) == PermissionDeniedError
    assert refusal(access, Request("GET", "/health", {"host": "[::1]:8002"})) is None
    assert refusal(access, Request("GET", "/health", {})) == PermissionDeniedError


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("example.org", False),
    ],
)
def test_where_only_this_machine_gets_in(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("host", "key", "wanted", "asks"),
    [
        ("127.0.0.1", None, None, False),
        ("127.0.0.1", "k3y", None, True),
        ("127.0.0.1", None, True, True),
        ("0.0.0.0", None, None, True),
        ("0.0.0.0", None, False, False),
    ],
)
def test_others_sign_in_by_default(tmp_path: Path, host: str, key: str | None, wanted: bool | None, asks: bool) -> None:
    settings = Settings(home=tmp_path, inference_key=SecretStr(key) if key else None)
    assert (refusal(open_access(settings, host, wanted=wanted), request()) is AuthenticationError) is asks


def test_the_key_is_the_environments_or_one_of_this_home(tmp_path: Path) -> None:
    made = inference_key(Settings(home=tmp_path))
    assert len(made) >= 32
    assert inference_key(Settings(home=tmp_path)) == made
    assert (tmp_path / ".loramill" / "inference_key").stat().st_mode & 0o077 == 0
    assert inference_key(Settings(home=tmp_path, inference_key=SecretStr("mine"))) == "mine"


def test_a_real_token_of_the_api_is_read(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    database = Database(settings.effective_database_url)
    database.upgrade()
    with database.transaction() as session:
        user = User(username="ann", password_hash="x", role=Role.USER, created_at=datetime.now(UTC))
        session.add(user)
    token = AccessTokens(signing_secret(settings)).issue(user)
    access = open_access(settings, "0.0.0.0")
    assert refusal(access, request(authorization=f"Bearer {token}")) is None
    switch = request("POST", "/models/a/switch", authorization=f"Bearer {token}")
    assert refusal(access, switch) == PermissionDeniedError
    assert refusal(access, request(authorization=f"Bearer {token[:-4]}AAAA")) == TokenInvalidError
    database.close()
