from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loramill.redaction import is_secret_name, one_line, redact, redact_command


@pytest.mark.parametrize("name", ["JWT_SECRET", "--password", "access_token", "api-key", "Authorization", "passwd"])
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["tokenizer", "tokens_per_second", "max_length", "secretary", "password_file"])
def test_other_names_are_not(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://ann:s3cret@db:5432/runs", "postgresql://***@db:5432/runs"),
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer ***"),
        ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1MSJ9.c2ln was refused", "token *** was refused"),
        ("hub said no to hf_abcdefghijklmnopqrst", "hub said no to ***"),
        ("refresh=lmr_0123456789abcdef_x-Y", "refresh=***"),
        ("https://example.org/a@b is a plain address", "https://example.org/a@b is a plain address"),
        ("mail ann@example.org", "mail ann@example.org"),
    ],
)
def test_secrets_in_a_text_are_hidden(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_secrets_on_a_command_line_are_hidden() -> None:
    command = [
        "loramill",
        "up",
        "--password",
        "s3cret",
        "--token=abc",
        "DATABASE_URL=postgresql://a:b@c/d",
        "--port",
        "1",
    ]
    assert redact_command(command) == [
        "loramill",
        "up",
        "--password",
        "***",
        "--token=***",
        "DATABASE_URL=postgresql://***@c/d",
        "--port",
        "1",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("right\u202eleft\u2028next", r"right\u202eleft\u2028next"),
        ("half a pair \ud800", r"half a pair \ud800"),
        ("中文　與 emoji 👍", "中文　與 emoji 👍"),
    ],
)
def test_what_drives_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert one_line(text) == shown


@given(st.text())
def test_one_line_is_one_line(text: str) -> None:
    shown = one_line(text)
    assert len(shown.splitlines()) <= 1
    assert one_line(shown) == shown
