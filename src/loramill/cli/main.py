"""The command line's front door: names every command, and imports only the one that was asked for.

``loramill --help`` must answer at once, so nothing heavy is imported here (no torch, no SQLAlchemy, no pydantic).
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

COMMANDS = {
    "train": ("loramill.cli.train", "Train an adapter from a config."),
    "sweep": ("loramill.cli.sweep", "Train many trials on one base, side by side."),
    "plan": ("loramill.cli.plan", "Estimate memory, time and disk of a run before it starts."),
    "predict": ("loramill.cli.predict", "Classify texts with a trained experiment."),
    "serve": ("loramill.cli.serve", "Serve trained experiments over HTTP."),
    "data": ("loramill.cli.data", "Validate, analyse, clean and version data sets."),
    "experiments": ("loramill.cli.experiments", "List, show, compare and delete experiments."),
    "models": ("loramill.cli.models", "Find models, promote them, give them aliases."),
    "reproduce": ("loramill.cli.reproduce", "Train an experiment again and compare the two models."),
    "export": ("loramill.cli.export", "Export a model: PEFT adapter, merged, or ONNX."),
    "up": ("loramill.cli.up", "Start API, worker, queue, page and inference together."),
    "api": ("loramill.cli.api", "Serve the REST API."),
    "ui": ("loramill.cli.ui", "Serve the web page."),
    "worker": ("loramill.cli.worker", "Do the jobs that wait in the queue."),
    "config": ("loramill.cli.config", "Show the config schema, or a config with all defaults."),
    "users": ("loramill.cli.users", "Create, list and disable the people who may sign in."),
    "audit": ("loramill.cli.audit", "Show and verify the audit log."),
    "db": ("loramill.cli.db", "Upgrade or back up the database."),
    "doctor": ("loramill.cli.doctor", "What this machine can do, and what is missing."),
}
"""Command -> (module with a ``typer.Typer`` called ``app``, one line of help)."""

HELP = ["--help", "-h"]
COMPLETION = ("install_completion", "show_completion")
"""Flags that typer gives to every app that stands by itself; these are parts of one."""


class LazyGroup(TyperGroup):
    """A group whose commands are imported when they are called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = dict.fromkeys(COMMANDS)  # type: ignore[assignment]  # the nearest name for a typo is one of these

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, summary = COMMANDS[cmd_name]
        if sys.argv[1:2] in ([], *([name] for name in HELP)):
            return TyperCommand(cmd_name, help=summary)
        command = typer.main.get_command(importlib.import_module(module).app)
        command.name = cmd_name
        command.params = [flag for flag in command.params if flag.name not in COMPLETION]
        return command


def with_dashes(token: str) -> str:
    """Names of options and commands are the same with underscores, as the configs and the API spell them."""
    return token.replace("_", "-")


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's boxes would double the time of --help
    context_settings={"help_option_names": HELP, "token_normalize_func": with_dashes},
)


def print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(metadata.version("loramill"))
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=print_version, help="Print the version and exit.")
]


@app.callback()
def loramill(version: Version = False) -> None:
    """LoRA fine-tuning and experiment management for text models."""


def main() -> None:
    """Run a command; expected errors become one readable message and an exit code (0, 1, 2, 130)."""
    from loramill.errors import ConfigError, LoramillError

    # Threads of torch that wait must sleep: spinning, they starve each other as soon as anything else uses a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except ConfigError as error:
        _fail(error, 2)
    except LoramillError as error:
        _fail(error, 1)


def _fail(error: Any, exit_code: int) -> None:
    sys.stderr.write(f"error [{error.code}]: {error.message}\n")
    if error.fix:
        sys.stderr.write(f"{error.fix}\n")
    raise SystemExit(exit_code)
