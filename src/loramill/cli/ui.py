"""``loramill ui``: the web page."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from loramill.settings import Settings

app = typer.Typer()


@app.command()
def ui(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Default: UI_PORT, or 8501.")] = None,
) -> None:
    """Serve the web page until Ctrl-C. It needs the API: LORAMILL_API_URL, or API_PORT of this machine."""
    settings = Settings.load()
    server = importlib.import_module("loramill.ui.server")  # the two layers do not know each other
    server.run_page(host, port or settings.ui_port)
