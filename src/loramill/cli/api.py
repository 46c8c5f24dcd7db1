"""``loramill api``: the REST API."""

from __future__ import annotations

from typing import Annotated

import typer

from loramill.cli.listening import bind
from loramill.cli.local import open_database
from loramill.settings import Settings

app = typer.Typer()


@app.command()
def api(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Default: API_PORT, or 8000; 0 takes a free one.")
    ] = None,
) -> None:
    """Serve the REST API until Ctrl-C; /docs describes it. Jobs need a worker, too."""
    import uvicorn

    from loramill.api.app import create_app

    settings = Settings.load()
    chosen_by, port = ("API_PORT", settings.api_port) if port is None else ("--port", port)
    bind(host, port, named=chosen_by).close()
    prepare_environment(settings)
    uvicorn.run(create_app(settings), host=host, port=port, timeout_graceful_shutdown=3)


def prepare_environment(settings: Settings) -> None:
    """Make what the environment asks for, the first administrator too: what is wrong with it is a sentence here.

    In the server's own start, which does the same for servers that are started otherwise, it would be a traceback.

    Raises:
        ConfigError: a secret, a limit, a URL, or the first administrator.
    """
    from loramill.auth.authentication import Authentication
    from loramill.auth.first_admin import ensure_first_admin
    from loramill.tasks.broker import RemoteBroker

    if settings.redis_url:
        RemoteBroker(settings.redis_url)
    with open_database(settings) as database:
        ensure_first_admin(settings, Authentication.from_settings(settings, database))
