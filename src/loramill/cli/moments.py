"""Times as options of commands: local unless they say otherwise, written as commands print them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from loramill.experiments.filters import through_the_day


def parse_moment(text: str) -> datetime:
    """A time in ISO 8601, local without a zone; a plain date is its midnight.

    Raises:
        typer.BadParameter: it is none, or out of range.
    """
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError, OSError) as error:  # the last two: the years 1 and 9999
        example = "2026-01-31, 2026-01-31 18:00 or 2026-01-31T18:00:00+08:00"
        raise typer.BadParameter(f"{text!r} is no time. Write it as {example}.") from error


def parse_last_moment(text: str) -> datetime:
    """``parse_moment`` for the end of a range: a plain date is the end of its day."""
    return parse_moment(through_the_day(text))


HELP = "Local time, such as 2026-01-31 or 2026-01-31T18:00:00"
Since = Annotated[datetime | None, typer.Option(parser=parse_moment, metavar="TIME", help=f"{HELP}.")]
Until = Annotated[
    datetime | None, typer.Option(parser=parse_last_moment, metavar="TIME", help=f"{HELP}; a date with its whole day.")
]
