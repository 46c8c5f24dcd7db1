"""Write ``docs/reference.md`` anew: commands, keys of the config and variables of the environment.

    .venv/bin/python scripts/render_reference.py

The page is committed, so that it can be read and searched; ``tests/test_docs.py`` refuses it when the code says other
things.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from loramill.cli.config import describe_default, describe_type
from loramill.cli.main import COMMANDS
from loramill.config.keys import iter_keys
from loramill.settings import Settings

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
TITLE = """# Reference

Rendered from the code by `scripts/render_reference.py`. The REST API describes itself at `/docs` of the service.
"""


def render_reference() -> str:
    commands = [(f"`loramill {name}`", summary) for name, (_, summary) in COMMANDS.items()]
    keys = [(f"`{key}`", describe_type(of), describe_default(of), of.description or "") for key, of in iter_keys()]
    settings = [(f"`{of.alias}`", of.description or "") for of in Settings.model_fields.values()]
    parts = [
        TITLE,
        _section("Commands", "`loramill COMMAND --help` has the options of each.", ("command", "what"), commands),
        _section(
            "Config",
            "In YAML, at the command line (`--set lora.r=16`), and as the `config` of `POST /train`.",
            ("key", "type", "default", "what"),
            keys,
        ),
        _section("Environment", "Read from `LORAMILL_HOME/.env`, too.", ("variable", "what"), settings),
    ]
    return "\n".join(parts)


def _section(title: str, about: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    table = [columns, ("---",) * len(columns), *rows]
    lines = ["| " + " | ".join(map(_escaped, row)) + " |" for row in table]
    return "\n".join([f"## {title}", "", about, "", *lines, ""])


def _escaped(cell: str) -> str:
    """Bars would begin a column, and what stands in angle brackets would not be shown."""
    return cell.replace("|", "\\|").replace("<", "\\<")


if __name__ == "__main__":
    PAGE.write_text(render_reference(), encoding="utf-8")
