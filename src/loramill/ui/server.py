"""The web page as a process: Streamlit's own server, one theme, and the two routes that keep a browser signed in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loramill.ui.browser_session import close_session, open_session
from loramill.ui.failures import hide_failure
from loramill.ui.pages.data import MAX_UPLOAD_MEGABYTES

SCRIPT = Path(__file__).with_name("script.py")

FONTS = '"Source Sans", "Noto Sans TC", "Noto Sans CJK TC", "PingFang TC", "Microsoft JhengHei", sans-serif'
PALETTE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b87d00", "#3593cc", "#8c5c1a", "#7f7f7f"]
"""Okabe and Ito's colours, which readers with any colour vision can tell apart; the two palest are darker here."""

DARK_PALETTE = ["#4aa8e0", "#ff8f52", "#3fc79a", "#e39bc4", "#f0b74a", "#9ad4f5", "#c99a5b", "#a9b1be"]
"""The same, lighter."""

THEME: dict[str, Any] = {
    "theme.font": FONTS,
    "theme.baseRadius": "8px",
    "theme.baseFontSize": 15,
    "theme.showWidgetBorder": True,
    "theme.light.chartCategoricalColors": PALETTE,
    "theme.dark.chartCategoricalColors": DARK_PALETTE,
    "theme.light.primaryColor": "#00649c",
    "theme.light.backgroundColor": "#ffffff",
    "theme.light.secondaryBackgroundColor": "#f4f6f9",
    "theme.light.textColor": "#1f2430",
    "theme.light.borderColor": "#dfe3ea",
    "theme.dark.primaryColor": "#4aa8e0",
    "theme.dark.backgroundColor": "#14171c",
    "theme.dark.secondaryBackgroundColor": "#1e232b",
    "theme.dark.textColor": "#e7e9ee",
    "theme.dark.borderColor": "#343b46",
}

OPTIONS: dict[str, Any] = {
    **THEME,
    "browser.gatherUsageStats": False,
    "client.showErrorDetails": "none",
    "client.showErrorLinks": False,
    "client.toolbarMode": "minimal",
    "server.fileWatcherType": "none",
    "server.headless": True,
    "server.maxUploadSize": MAX_UPLOAD_MEGABYTES,
    "server.runOnSave": False,
}

HEADERS = (
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
)


class SecurityHeaders:
    """On every reply: no other site may frame the page, and addresses with ids stay on this one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def create_page() -> st.App:
    """The page; it learns from the environment where the API is."""
    return st.App(
        SCRIPT,
        routes=[
            Route("/session", open_session, methods=["POST"]),
            Route("/session", close_session, methods=["DELETE"]),
        ],
        middleware=[Middleware(SecurityHeaders)],
        on_script_error=hide_failure,
    )


def run_page(host: str, port: int) -> None:
    """Serve the page until a signal."""
    create_page().run(config={**OPTIONS, "server.address": host, "server.port": port})
