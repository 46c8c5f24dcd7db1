"""Keeping secrets and forged lines out of what a person will read: logs, events, recorded command lines."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

HIDDEN = "***"
SECRET_NAME = re.compile(
    r"(token|secret|passw(or)?d|api[-_]?key|access[-_]?key|credentials?|authorization|cookie)$", re.IGNORECASE
)
SECRET_TEXT = re.compile(
    r"(?<=://)[^/@\s]+(?=@)"  # user:password@ in a URL
    r"|(?<=bearer )[\w.~+/=-]+"
    r"|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"  # a JSON web token
    r"|\bhf_\w{16,}"
    r"|\blmr_[\w-]{16,}",  # a refresh token of ours
    re.IGNORECASE,
)


def is_secret_name(name: str) -> bool:
    """Whether a variable, key or flag of this name holds a secret: ``JWT_SECRET``, ``--password``."""
    return bool(SECRET_NAME.search(name))


def redact(text: str) -> str:
    """The text without passwords in URLs, bearer tokens, JSON web tokens, refresh tokens and hub tokens."""
    return SECRET_TEXT.sub(HIDDEN, text)


def redact_command(arguments: Sequence[str]) -> list[str]:
    """A command line without secrets: ``--password x``, ``TOKEN=x``, and what ``redact`` finds."""
    shown: list[str] = []
    hide_next = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        secret = is_secret_name(name)
        if hide_next:
            shown.append(HIDDEN)
        else:
            shown.append(f"{name}={HIDDEN}" if secret and equals else redact(argument))
        hide_next = secret and not equals and argument.startswith("-")
    return shown


def one_line(text: str) -> str:
    r"""The text with everything escaped that could start a line or drive a terminal: ``\n``, ``\x1b``, ``\u202e``."""
    if text.isprintable():
        return text
    return "".join(_escaped(character) if _drives_output(character) else character for character in text)


def _drives_output(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "C" or category in ("Zl", "Zp")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
