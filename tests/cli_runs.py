"""The ``loramill`` command in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

import forked
from loramill.config.load import dump_config
from loramill.config.schema import ExperimentConfig

COMMAND = [sys.executable, "-c", "from loramill.cli.main import main; main()"]


def environment(home: Path, **more: str) -> dict[str, str]:
    """Only what a process needs, so that nothing of this machine decides a test."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    return {**kept, "LORAMILL_HOME": str(home), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **more}


def write_config(path: Path, config: ExperimentConfig | Mapping[str, object]) -> Path:
    text = dump_config(config) if isinstance(config, ExperimentConfig) else yaml.safe_dump(dict(config))
    path.write_text(text, encoding="utf-8")
    return path


def loramill(
    home: Path, *arguments: str | Path, before: Sequence[str] = (), **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    Args:
        before: what starts it, such as ``["nice"]``.
        more: environment variables.
    """
    command = [*before, *COMMAND, *map(str, arguments)]
    return subprocess.run(command, env=environment(home, **more), capture_output=True, text=True, check=False)


def loramill_forked(home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in a process forked from one that has imported torch, which takes two seconds less.

    For one of many calls of a command whose start another test has seen.
    """
    with tempfile.TemporaryDirectory() as folder:
        printed, said = Path(folder) / "stdout", Path(folder) / "stderr"
        code = forked.run(_main, environment(home), [*map(str, arguments)], printed, said)
        return subprocess.CompletedProcess(arguments, code, printed.read_text(), said.read_text())


def _main(variables: Mapping[str, str], arguments: Sequence[str], printed: Path, said: Path) -> None:
    from huggingface_hub import constants

    from loramill.cli.main import main

    os.environ.clear()
    os.environ.update(variables)
    constants.HF_HUB_OFFLINE = True  # the hub's client has read its variable when it was imported
    for stream, file in ((1, printed), (2, said)):
        os.dup2(os.open(file, os.O_CREAT | os.O_WRONLY), stream)
    sys.argv = ["loramill", *arguments]
    main()


def start_loramill(home: Path, *arguments: str | Path, **more: str) -> subprocess.Popen[str]:
    """Start a command in a process group of its own, as a shell does."""
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        env=environment(home, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
