"""One run in several processes: the first records it, the others follow (``torchrun``, ``accelerate launch``)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from loramill.experiments.folder import ExperimentFolder
from loramill.jobs.folders import recorded_config
from loramill.settings import Settings


def follows() -> bool:
    """Whether this process was started beside a first one, which knows what is to be done."""
    return int(os.environ.get("RANK", "0")) > 0


def call_others(folder: ExperimentFolder, *, resume: bool, strict: bool) -> None:
    """Let those who follow know which run it is; nothing when this process is alone."""
    from loramill.training.processes import join_processes

    join_processes().tell(json.dumps({"folder": str(folder.path.absolute()), "resume": resume, "strict": strict}))


def follow_training(settings: Settings, should_stop: Callable[[], bool]) -> None:
    """Train the run that the first process names, without writing or recording anything.

    Raises:
        LoramillError: as in the first process.
    """
    from loramill.training.processes import join_processes, leave_processes
    from loramill.training.run import run_training

    told = json.loads(join_processes().tell(""))
    folder = ExperimentFolder(Path(told["folder"]))
    run_training(
        recorded_config(folder),
        folder=folder,
        data_folder=settings.data_folder,
        on_event=lambda _event: None,
        should_stop=should_stop,
        resume=told["resume"],
        strict=told["strict"],
    )
    leave_processes()
