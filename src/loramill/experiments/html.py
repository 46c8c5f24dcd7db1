"""Self-contained HTML pages: styles and charts inside, no script, nothing fetched, every value escaped."""

from __future__ import annotations

from importlib import metadata
from typing import Any


def render_page(template: str, title: str, **view: Any) -> str:
    """One page of ``templates/``.

    Args:
        view: what the template shows; SVG of ``charts`` goes through ``as_svg``, all else is escaped.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined  # 30 ms that only those who write pages pay

    environment = Environment(
        loader=PackageLoader("loramill.experiments"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(template).render(title=title, version=metadata.version("loramill"), **view)


def as_svg(charts: list[str]) -> list[Any]:
    """Charts that were drawn, marked as safe to embed; ``charts`` escapes the names in them."""
    from markupsafe import Markup

    return [Markup(chart) for chart in charts if chart]  # noqa: S704
