"""What the tests of the page share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from streamlit.testing.v1 import AppTest

from loramill.ui.sign_ins import SignIn

Shows = Callable[..., AppTest]
"""Page, person, language and query -> the page as drawn."""

SignsIn = Callable[[str], SignIn]
AddRun = Callable[..., str]

PASSWORD = "correct horse battery"
SCRIPT = """from loramill.ui.failures import guarded
from loramill.ui.pages.{page} import draw
guarded(draw)()
"""

TABS = {
    "experiment": ("overview", "config", "report", "files", "log", "notes"),
    "data": ("findings", "rows", "analysis", "versions", "suspects"),
    "admin": ("users", "audit", "health"),
}
NAMES = ("train", "tasks", "experiments", "experiment", "compare", "sweeps", "data", "models", "admin")
VIEWS = [(page, tab) for page in NAMES for tab in TABS.get(page, ("",))]

FIELDS = ("text_input", "number_input", "selectbox", "multiselect", "toggle")


def fields_of(test: AppTest) -> Iterator[Any]:
    """What one can fill in."""
    for kind in FIELDS:
        yield from test.get(kind)


def seen(test: AppTest) -> str:
    """Everything that a page shows as HTML or Markdown."""
    kinds = ("html", "markdown", "caption")
    return "\n".join(str(element.proto.body) for kind in kinds for element in test.get(kind))
