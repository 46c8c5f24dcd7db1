"""``loramill api``: the REST API."""

from __future__ import annotations

from typing import Annotated

import typer

from loramill.cli.local import open_database
from loramill.settings import Settings

app = typer.Typer()


@app.command()
def api(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Default: API_PORT, or 8000.")] = None,
) -> None:
    """Serve the REST API until Ctrl-C; /docs describes it. Jobs need a worker, too."""
    import uvicorn

    from loramill.api.app import create_app
    from loramill.auth.authentication import Authentication

    settings = Settings.load()
    # What is wrong with the environment is a sentence here; in the server's own start it would be a traceback.
    with open_database(settings) as database:
        Authentication.from_settings(settings, database)
    uvicorn.run(create_app(settings), host=host, port=port or settings.api_port, timeout_graceful_shutdown=3)
