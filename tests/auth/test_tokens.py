"""Thirty ways to forge a token, or to come too late; each must be refused with one and the same error."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest

from loramill.auth.models import Role, User
from loramill.auth.tokens import CLAIMS, AccessTokens, Claims
from loramill.errors import TokenInvalidError

KEY = "kR3xgq0pZ7w2VbNf9sLdYtH4mJc6uEa8"
OTHER_KEY = "Zt5vQm1nX8y3WcPg0rKeUsJ6hLd7bFa9"
USER = User(number=7, username="ada", role=Role.USER, token_version=3)


def claims(**changed: Any) -> dict[str, Any]:
    """The content of a good token, with some claims changed, or left out when ``None``."""
    now = int(time.time())
    good = {"sub": "u7", "role": "user", "ver": 3, "iat": now, "exp": now + 600, "jti": "a", "iss": "loramill"}
    return {name: value for name, value in {**good, "type": "access", **changed}.items() if value is not None}


def segment(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def signed(header: object, content: object, key: str = KEY, *, digest: str = "sha256") -> str:
    """A token made by hand, for what PyJWT refuses to make."""
    body = f"{segment(json.dumps(header).encode())}.{segment(json.dumps(content).encode())}"
    return f"{body}.{segment(hmac.digest(key.encode(), body.encode(), digest))}"


def good() -> str:
    return AccessTokens(KEY).issue(USER)


def with_role_swapped(token: str) -> str:
    header, body, signature = token.split(".")
    content = json.loads(base64.urlsafe_b64decode(body + "=="))
    return f"{header}.{segment(json.dumps({**content, 'role': 'admin'}).encode())}.{signature}"


def with_flipped_signature(token: str) -> str:
    return token[:-5] + ("A" if token[-5] != "A" else "B") + token[-4:]


HS256 = {"alg": "HS256", "typ": "JWT"}

FORGED: dict[str, Callable[[], str]] = {
    "nothing": lambda: "",
    "no token": lambda: "not a token",
    "two parts": lambda: good().rpartition(".")[0],
    "four parts": lambda: good() + ".e30",
    "no signature": lambda: good().rpartition(".")[0] + ".",
    "spaces around": lambda: f" {good()} ",
    "line break at the end": lambda: good() + "\n",
    "padding at the end": lambda: good() + "=",
    "the scheme left in": lambda: f"Bearer {good()}",
    "very long": lambda: good() + "A" * 100_000,
    "deep header": lambda: segment(b'{"alg":' + b"[" * 700) + ".e30.AAAA",
    "not UTF-8": lambda: segment(b"\xff\xfe") + ".e30.AAAA",
    "lone surrogate": lambda: "\ud800.\ud800.\ud800",
    "wrong key": lambda: jwt.encode(claims(), OTHER_KEY, "HS256"),
    "empty key": lambda: signed(HS256, claims(), ""),
    "alg none": lambda: jwt.encode(claims(), None, "none"),
    "alg None in capitals": lambda: (
        f"{segment(json.dumps({'alg': 'NoNe'}).encode())}.{segment(json.dumps(claims()).encode())}."
    ),
    "alg HS384 with the right key": lambda: signed({"alg": "HS384"}, claims(), digest="sha384"),
    "alg HS512 with the right key": lambda: signed({"alg": "HS512"}, claims(), digest="sha512"),
    "alg RS256 over an HMAC": lambda: signed({"alg": "RS256"}, claims()),
    "alg missing": lambda: signed({"typ": "JWT"}, claims()),
    "a key of its own in the header": lambda: signed(
        {**HS256, "jwk": {"kty": "oct", "k": segment(OTHER_KEY.encode())}}, claims(), OTHER_KEY
    ),
    "a path as key id": lambda: signed({**HS256, "kid": "../../../../dev/null"}, claims(), ""),
    "role raised": lambda: with_role_swapped(good()),
    "signature changed": lambda: with_flipped_signature(good()),
    "expired": lambda: jwt.encode(claims(exp=int(time.time()) - 60), KEY, "HS256"),
    "from the future": lambda: jwt.encode(claims(iat=int(time.time()) + 600, exp=int(time.time()) + 900), KEY, "HS256"),
    "not yet": lambda: jwt.encode(claims(nbf=int(time.time()) + 600), KEY, "HS256"),
    "endless": lambda: signed(HS256, claims(exp=float("inf"))),
    "expiry in words": lambda: signed(HS256, claims(exp="tomorrow")),
    "other issuer": lambda: jwt.encode(claims(iss="elsewhere"), KEY, "HS256"),
    "for somebody else": lambda: jwt.encode(claims(aud="another service"), KEY, "HS256"),
    "a refresh token": lambda: jwt.encode(claims(type="refresh"), KEY, "HS256"),
    "unknown role": lambda: jwt.encode(claims(role="root"), KEY, "HS256"),
    "role as a list": lambda: jwt.encode(claims(role=["admin"]), KEY, "HS256"),
    "subject as a number": lambda: signed(HS256, claims(sub=7)),
    "version as text": lambda: jwt.encode(claims(ver="3"), KEY, "HS256"),
    "version as true": lambda: jwt.encode(claims(ver=True), KEY, "HS256"),
    "content is a list": lambda: signed(HS256, ["sub", "u7"]),
    "content is no JSON": lambda: f"{segment(json.dumps(HS256).encode())}.{segment(b'nothing')}.{segment(b'nothing')}",
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED.keys())
def test_forged_and_stale_tokens_are_refused_alike(forge: Callable[[], str]) -> None:
    with pytest.raises(TokenInvalidError) as caught:
        AccessTokens(KEY).read(forge())
    assert caught.value.code == "token_invalid"
    assert caught.value.message == "The access token is not valid, or no longer."


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_token_that_lacks_a_claim_is_refused(claim: str) -> None:
    with pytest.raises(TokenInvalidError):
        AccessTokens(KEY).read(jwt.encode(claims(**{claim: None}), KEY, "HS256"))


def test_the_forgers_own_tools_work() -> None:
    """What is refused above is refused for its fault alone: the same tools make good tokens."""
    for token in (jwt.encode(claims(), KEY, "HS256"), signed(HS256, claims()), good()):
        assert AccessTokens(KEY).read(token).user_id == "u7"


def test_a_token_says_who_for_thirty_minutes() -> None:
    tokens = AccessTokens(KEY)
    token = tokens.issue(USER)
    read = tokens.read(token)
    assert read == Claims("u7", Role.USER, 3, read.token_id)
    content = jwt.decode(token, options={"verify_signature": False})
    assert set(content) == set(CLAIMS)
    assert content["exp"] - content["iat"] == 30 * 60
    assert abs(content["iat"] - time.time()) < 5


def test_no_two_tokens_are_the_same() -> None:
    tokens = AccessTokens(KEY)
    assert len({tokens.read(tokens.issue(USER)).token_id for _ in range(100)}) == 100


def test_a_token_ends_with_its_lifetime() -> None:
    tokens = AccessTokens(KEY, lifetime=timedelta(seconds=-6))  # beyond the leeway for clocks that differ
    with pytest.raises(TokenInvalidError):
        tokens.read(tokens.issue(USER))


def test_clocks_may_differ_by_seconds() -> None:
    ahead = datetime.now(UTC) + timedelta(seconds=3)
    assert AccessTokens(KEY).read(jwt.encode(claims(iat=ahead), KEY, "HS256")).user_id == "u7"
