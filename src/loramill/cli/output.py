"""How commands print: one JSON document on stdout with ``--json``, otherwise something for people."""

from __future__ import annotations

import json
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def print_json(value: object) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2))
