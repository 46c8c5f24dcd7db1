"""Numbers, times and sizes as people read them."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import streamlit as st

from loramill.ui.texts import t

ABSENT = "–"
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def number(value: float | None, digits: int = 4) -> str:
    """``0.8365``, ``12,000``, ``1.2e-05``."""
    if value is None or not math.isfinite(value):
        return ABSENT
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) < 1e-3:
        return f"{value:.{digits - 2}g}"
    return f"{value:,.{digits}f}" if abs(value) < 100 else f"{value:,.1f}"


def score(value: float | None) -> str:
    """From 0 to 1, always with the same digits: ``1.0000``."""
    return ABSENT if value is None or not math.isfinite(value) else f"{value:.4f}"


def duration(seconds: float | None) -> str:
    """``8.4 s``, ``2 min 5 s``, ``3 h 20 min``."""
    if seconds is None or not math.isfinite(seconds):
        return ABSENT
    if seconds < 60:
        return t("unit.seconds", seconds=f"{seconds:.1f}" if seconds < 10 else f"{seconds:.0f}")
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return t("unit.minutes", minutes=minutes, seconds=rest)
    return t("unit.hours", hours=minutes // 60, minutes=minutes % 60)


def size(count: float | None) -> str:
    """``1.5 MiB``."""
    if count is None:
        return ABSENT
    power = min(int(math.log(count, 1024)), len(UNITS) - 1) if count >= 1 else 0
    return f"{count / 1024**power:,.{1 if power else 0}f} {UNITS[power]}"


def moment(text: str | None) -> datetime | None:
    """A time of the API in the reader's zone."""
    if not text:
        return None
    found = datetime.fromisoformat(text)
    aware = found if found.tzinfo else found.replace(tzinfo=UTC)
    return aware.astimezone(reader_zone())


def when(text: str | None) -> str:
    found = moment(text)
    return found.strftime("%Y-%m-%d %H:%M:%S") if found else ABSENT


def reader_zone() -> ZoneInfo:
    try:
        return ZoneInfo(st.context.timezone or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")
