"""``loramill serve``: the inference service."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from loramill.cli.listening import BACKLOG, bind, listen
from loramill.settings import Settings

if TYPE_CHECKING:
    import socket

    import uvicorn
    from fastapi import FastAPI

    from loramill.inference.model_service import ModelService
    from loramill.inference.request_limits import RequestLimits
    from loramill.training.device import ComputeDevice

PRECISIONS: dict[str, Literal["auto"] | bool] = {"auto": "auto", "float32": False, "bfloat16": True}
GRACE_SECONDS = 30
"""After SIGTERM, requests that were accepted get so long to be answered."""

app = typer.Typer()


@app.command()
def serve(
    experiment: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="Experiment, registry alias or stage; the newest experiment if absent."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="INFERENCE_PORT, or 8002; 0 takes a free one.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:<index>.")] = "auto",
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        typer.Option(help="auto: bfloat16 where products are faster in it."),
    ] = "auto",
    auth: Annotated[
        bool | None,
        typer.Option(
            "--auth/--no-auth",
            help="Ask callers for LORAMILL_INFERENCE_KEY (or .loramill/inference_key), or a token of the API. "
            "Default: on, but not for a service on this machine alone.",
        ),
    ] = None,
    max_texts: Annotated[int, typer.Option(min=1, help="Texts in one request.")] = 1000,
    max_text_characters: Annotated[int, typer.Option(min=1, help="Characters of one text.")] = 50_000,
    adapter_memory: Annotated[int, typer.Option(min=1, metavar="MB", help="Memory for adapters.")] = 4096,
) -> None:
    """Serve trained experiments over HTTP: POST /predict; /docs shows the rest."""
    signal.signal(signal.SIGTERM, _end_at_once)
    settings = Settings.load()
    listener = bind(host, settings.inference_port if port is None else port)
    port = listener.getsockname()[1]  # not 0: services on free ports have files of their own

    from loramill.inference.access import open_access  # torch: not before the address is known to be free
    from loramill.inference.request_limits import RequestLimits
    from loramill.inference.service import create_app
    from loramill.training.device import choose_device

    compute = choose_device(device, PRECISIONS[precision])
    limits = RequestLimits(texts=max_texts, text_characters=max_text_characters)
    service = new_service(settings, experiment, port, compute, limits, adapter_bytes=adapter_memory << 20)
    access = open_access(settings, host, wanted=auth)
    typer.echo(compute.reason, err=True)
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    run_server(service, create_app(service, access), listener, address)


def new_service(
    settings: Settings,
    default: str | None,
    port: int,
    compute: ComputeDevice,
    limits: RequestLimits,
    *,
    adapter_bytes: int,
) -> ModelService:
    """The service of this home on a port; nothing is loaded yet.

    Args:
        default: what requests without a model get, see ``ModelService``.
    """
    from loramill.inference.defaults import default_batch_limits
    from loramill.inference.model_host import HostOptions
    from loramill.inference.model_names import RegistryNames
    from loramill.inference.model_service import ModelService

    options = HostOptions(
        results_folder=settings.results_folder,
        state_file=settings.results_folder / f"serving_{port}.json",
        device=compute.device,
        dtype=compute.dtype,
        adapter_bytes=adapter_bytes,
    )
    return ModelService(
        options,
        batches=default_batch_limits(compute.device),
        limits=limits,
        registry=RegistryNames(settings),
        default=default,
    )


def run_server(service: ModelService, web_app: FastAPI, listener: socket.socket, address: str) -> None:
    """Serve until a signal; then answer what was accepted, and return.

    Raises:
        LoramillError: the service could not start.
    """
    import uvicorn

    config = uvicorn.Config(
        web_app,
        lifespan="off",
        log_level="warning",
        access_log=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = uvicorn.Server(config)
    # Once it has started, uvicorn answers the signal, then raises it again for whoever was there before.
    signal.signal(signal.SIGTERM, lambda number, frame: None if server.started else _end_at_once(number, frame))
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_serve(service, server, listener, address))


async def _serve(service: ModelService, server: uvicorn.Server, listener: socket.socket, address: str) -> None:
    try:
        await service.start()
        listen(listener)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        typer.echo(f"Serving {_default_of(service)} on {address}", err=True)
        await serving
    finally:
        await service.stop()


def _default_of(service: ModelService) -> str:
    """What a request without a model gets, in words."""
    host = service.host
    if (default := host.find()) is not None:
        return default.saved.experiment_id
    if (chosen := host.default) is None:
        return "no experiment yet"
    return f"no default ({chosen} cannot be served: {host.failures.get(chosen, 'not loaded')})"


def _end_at_once(_signal: int, _frame: object) -> None:
    """Before anything is served there is nothing to answer, and a thread that reads a large model is not waited for."""
    os._exit(0)
