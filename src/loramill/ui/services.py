"""Where the services are, and who asks them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import httpx
import streamlit as st

from loramill.api_session import ApiError
from loramill.client import Client
from loramill.errors import UnavailableError
from loramill.settings import Settings
from loramill.ui.sign_ins import SignIn

STATE = "sign_in"
PREDICT_SECONDS = 60.0


@functools.cache
def settings() -> Settings:
    """Of this process; read once."""
    return Settings.load()


def new_client() -> Client:
    """A connection to the API for somebody who has not signed in yet."""
    return Client(settings().effective_api_url, on_behalf_of=st.context.ip_address)


def signed_in() -> SignIn | None:
    sign_in: SignIn | None = st.session_state.get(STATE)
    return sign_in if sign_in is not None and sign_in.is_valid else None


def me() -> SignIn:
    """Who looks at the page; asked only where somebody is signed in."""
    sign_in = signed_in()
    if sign_in is None:
        raise ApiError(401, {"code": "not_signed_in"})
    return sign_in


def api() -> Client:
    return me().client


def ask_model() -> Callable[[str, str], dict[str, Any]]:
    """A function of text and model that asks the inference service, for threads that know no session.

    It raises ``ApiError`` and ``UnavailableError``.
    """
    authorization = api().authorization

    def ask(text: str, model: str) -> dict[str, Any]:
        body = {"text": text, "model": model}
        reply: dict[str, Any] = _ask_inference("POST", "/predict", authorization, json=body)
        return reply

    return ask


def inference_health() -> dict[str, Any]:
    reply: dict[str, Any] = _ask_inference("GET", "/health", api().authorization)
    return reply


def _ask_inference(method: str, path: str, authorization: str, **options: Any) -> Any:
    headers = {"Authorization": authorization}
    url = settings().effective_inference_url
    try:
        reply = httpx.request(method, f"{url}{path}", headers=headers, timeout=PREDICT_SECONDS, **options)
        body = reply.json()
    except (httpx.TransportError, ValueError) as error:
        raise UnavailableError("The inference service does not answer.", fix="Start it: loramill serve") from error
    if reply.is_error:
        raise ApiError(503 if reply.status_code == 401 else reply.status_code, body)
    return body
