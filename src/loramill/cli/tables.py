"""Tables for people at a terminal, and for files when the output is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from loramill.experiments.pages import DataTable, show_cell

WIDTH_OF_A_FILE = 250
"""Columns when the output goes to a pipe or a file, so that nothing is cut there."""


def print_people(shown: RenderableType) -> None:
    """Print a table or a line on stdout; texts are taken as they are, never as markup."""
    width = None if sys.stdout.isatty() else WIDTH_OF_A_FILE
    Console(width=width, soft_wrap=isinstance(shown, str), highlight=False, markup=False).print(shown)


def data_table(table: DataTable) -> Table:
    """Rows under columns: the first column never cut, numbers to the right."""
    drawn = Table(header_style="bold", title_justify="left")
    for index, name in enumerate(table.columns):
        numeric = any(isinstance(row[index], int | float) for row in table.rows)
        drawn.add_column(
            Text(name), justify="right" if numeric else "left", no_wrap=index == 0 or numeric, overflow="fold"
        )
    for row in table.shown():
        drawn.add_row(*map(Text, row))
    return drawn


def facts_table(title: str, facts: Mapping[str, Any]) -> Table:
    """Names and values of one thing."""
    drawn = Table("field", "value", title=title, title_justify="left", show_header=False)
    for name, value in facts.items():
        drawn.add_row(Text(name), Text(show_cell(value)))
    return drawn
