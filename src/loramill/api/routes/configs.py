"""Configs before they are submitted: those that are shipped, what is wrong with one, and what a run of it will take."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

import loramill
from loramill.api.dependencies import User
from loramill.api.schemas import Body
from loramill.api.services import Services
from loramill.api.submitted_config import check_submitted
from loramill.config.load import dump_config, load_config, parse_config
from loramill.config.schema import ExperimentConfig
from loramill.errors import ConfigError, OverloadedError, UnavailableError
from loramill.settings import Settings

router = APIRouter(prefix="/config", tags=["config"])

log = logging.getLogger(__name__)

PLAN_SECONDS = 120
ONE_PLAN = threading.Lock()
"""A plan tries real steps: two at once would measure each other."""


class ConfigRequest(Body):
    config: dict[str, Any]


class Preset(BaseModel):
    name: str
    summary: str = Field(description="The first sentence of the file's comment.")
    config: dict[str, Any]


class CheckReply(BaseModel):
    """``problems`` lists everything that is wrong; ``config`` is the whole tree, defaults included, when nothing is."""

    problems: list[dict[str, Any]]
    config: dict[str, Any] | None


class PlanReply(BaseModel):
    """``plan`` holds bytes and seconds; ``problem`` says in its place what would stop the run."""

    plan: dict[str, Any] | None
    problem: dict[str, str] | None


@router.get("/presets")
def presets(_user: User, services: Services) -> list[Preset]:
    """The configs of `config/`, each with all its values."""
    own = presets_in(services.settings.home / "config")
    return own or presets_in(Path(loramill.__file__).parents[2] / "config")


@router.post("/check")
def check(body: ConfigRequest, user: User, services: Services) -> CheckReply:
    """Everything that submitting this config would be refused for. Nothing is submitted."""
    try:
        config = check_submitted(parse_config(body.config), user, services.database)
    except ConfigError as error:
        return CheckReply(problems=[problem.as_dict() for problem in error.problems], config=None)
    return CheckReply(problems=[], config=config.model_dump(mode="json"))


@router.post("/plan")
def plan(body: ConfigRequest, user: User, services: Services) -> PlanReply:
    """Memory, time and disk of a run, from a few of its real steps: takes seconds. Nothing is kept."""
    config = check_submitted(parse_config(body.config), user, services.database)
    if importlib.util.find_spec("torch") is None:
        raise UnavailableError("The API cannot plan: torch is not installed beside it.", fix="Use: loramill plan")
    if not ONE_PLAN.acquire(blocking=False):
        raise OverloadedError("Another plan is being made.", retry_after=5)
    try:
        return run_plan(config, services.settings)
    finally:
        ONE_PLAN.release()


def presets_in(folder: Path) -> list[Preset]:
    """Every file that is a config. A folder of this name may hold others, and half-written ones: the log names them."""
    presets = []
    for file in sorted(folder.glob("*.yaml")):
        try:
            config = load_config(file)
        except ConfigError as error:
            log.warning("%s is no preset: %s", file, error)
            continue
        presets.append(Preset(name=file.stem, summary=summary_of(file), config=config.model_dump(mode="json")))
    return presets


def summary_of(file: Path) -> str:
    comment = re.match(r"#\s*(.+)", file.read_text(encoding="utf-8"))
    return comment.group(1).partition(". ")[0].rstrip(".") if comment else ""


def run_plan(config: ExperimentConfig, settings: Settings) -> PlanReply:
    """``loramill plan`` in a process of its own: the API never imports torch."""
    command = [sys.executable, "-c", "from loramill.cli.main import main; main()", "plan"]
    environment = {**os.environ, "LORAMILL_HOME": str(settings.home.absolute())}
    with tempfile.TemporaryDirectory(prefix="loramill-plan-") as scratch:
        file = Path(scratch) / "config.yaml"
        file.write_text(dump_config(config), encoding="utf-8")
        try:
            done = subprocess.run(  # noqa: S603
                [*command, str(file), "--json"],
                capture_output=True,
                text=True,
                timeout=PLAN_SECONDS,
                env=environment,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise OverloadedError(f"The plan took more than {PLAN_SECONDS} s.", retry_after=60) from None
    return PlanReply(plan=json.loads(done.stdout), problem=None) if done.returncode == 0 else _refused(done.stderr)


def _refused(stderr: str) -> PlanReply:
    said = re.search(r"error \[(\w+)\]: (.*)", stderr, re.DOTALL)
    code, message = said.groups() if said else ("internal_error", "The plan failed.")
    return PlanReply(plan=None, problem={"code": code, "message": message.strip()[:2000]})
