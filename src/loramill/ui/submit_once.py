"""What somebody submits arrives once: sent again after a lost answer, or by a double click, it is the same job."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from typing import Any, TypeVar

import streamlit as st

DOUBLE_CLICK_SECONDS = 2.0

Reply = TypeVar("Reply")


def submit_once(form: str, body: dict[str, Any], send: Callable[[str], Reply]) -> Reply:
    """Send what a form says, with a key under which the API takes it once.

    The key stays until the body changes or the answer has been there for ``DOUBLE_CLICK_SECONDS``; after that the
    same body is meant to be another job.
    """
    state = f"submitted_{form}"
    kept, key, until = st.session_state.get(state, (None, "", 0.0))
    if kept != body or time.monotonic() > until:
        key = secrets.token_hex(16)
        st.session_state[state] = (body, key, math.inf)
    reply = send(key)
    st.session_state[state] = (body, key, time.monotonic() + DOUBLE_CLICK_SECONDS)
    return reply
