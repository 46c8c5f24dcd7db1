"""What the tests of the page share."""

from __future__ import annotations

from collections.abc import Callable

from streamlit.testing.v1 import AppTest

Shows = Callable[..., AppTest]
"""Page, person, language and query -> the page as drawn."""


def seen(test: AppTest) -> str:
    """Everything that a page shows as HTML or Markdown."""
    kinds = ("html", "markdown", "caption")
    return "\n".join(str(element.proto.body) for kind in kinds for element in test.get(kind))
