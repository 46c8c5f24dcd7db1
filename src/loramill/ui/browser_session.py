"""The cookie that lets a reloaded page find its sign-in again.

Streamlit speaks to a browser over a websocket, which cannot set cookies. So the page hands the browser a ticket,
which a line of script exchanges for the cookie: ``HttpOnly``, ``SameSite=Strict``, and ``Secure`` wherever the page is.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import streamlit as st
from starlette.requests import Request
from starlette.responses import Response

from loramill.ui.sign_ins import LIFETIME_SECONDS, sign_ins

MAX_TICKET = 200

SCRIPT = """
const done = (window.loramillTickets ??= new Set());
export default function ({ data }) {
  if (!data || done.has(data.ticket)) return;
  done.add(data.ticket);
  const method = data.open ? "POST" : "DELETE";
  fetch("/session", { method, body: data.open ? data.ticket : undefined, credentials: "same-origin" });
}
"""


def cookie_name(port: int | None) -> str:
    """Cookies do not tell ports apart, and several pages may run on one machine."""
    return f"loramill_page_{port}" if port else "loramill_page"


async def open_session(request: Request) -> Response:
    """Exchange a ticket for a cookie."""
    if _is_foreign(request):
        return Response(status_code=403)
    body = (await request.body())[: MAX_TICKET + 1]
    cookie = sign_ins().redeem(body.decode("ascii", "replace"))
    if cookie is None:
        return Response(status_code=403)
    reply = Response(status_code=204)
    reply.set_cookie(cookie_name(request.url.port), cookie, max_age=LIFETIME_SECONDS, **_safe(request))
    return reply


async def close_session(request: Request) -> Response:
    """Forget the cookie here and in the browser, unless somebody signed in there meanwhile, in another tab."""
    if _is_foreign(request):
        return Response(status_code=403)
    name = cookie_name(request.url.port)
    reply = Response(status_code=204)
    if sign_ins().find(cookie := request.cookies.get(name)) is None:
        sign_ins().forget(cookie)
        reply.delete_cookie(name, **_safe(request))
    return reply


def cookie_of_browser() -> str | None:
    """The number that this page's browser came with."""
    port = urlsplit(st.context.url or "").port
    return st.context.cookies.get(cookie_name(port))


def keep_session(ticket: str, *, opened: bool) -> None:
    """Have the browser take up its cookie, or drop it; once for a ticket."""
    component = st.components.v2.component("loramill.session", js=SCRIPT)
    component(key="browser_session", data={"ticket": ticket, "open": opened}, height=1)


def _safe(request: Request) -> dict[str, Any]:
    return {"httponly": True, "samesite": "strict", "secure": request.url.scheme == "https", "path": "/"}


def _is_foreign(request: Request) -> bool:
    """Whether another site's page sent it."""
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host")
