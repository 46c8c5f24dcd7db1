"""What a run ran on (``environment.json``): enough to explain a difference, nothing secret."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import psutil

from loramill.redaction import redact_command

PACKAGES = (
    "loramill",
    "torch",
    "transformers",
    "peft",
    "tokenizers",
    "safetensors",
    "accelerate",
    "datasets",
    "numpy",
    "pyarrow",
    "sqlalchemy",
)
"""Packages whose version can change a result or a file."""

GIT_TIMEOUT_SECONDS = 2.0


def describe_environment(folder: Path | None = None) -> dict[str, object]:
    """Versions, hardware and git state, read without importing any of the packages it names.

    Args:
        folder: where to look for a git checkout; the current folder if absent.
    """
    return {
        "python": platform.python_version(),
        "packages": package_versions(),
        "os": platform.platform(),
        "cpu": {"model": _cpu_model(), "cores": psutil.cpu_count(logical=False), "threads": psutil.cpu_count()},
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": _gpus(),
        "git": _git_state(folder or Path.cwd()),
        "command": redact_command(sys.argv),
    }


def package_versions() -> dict[str, str]:
    """Installed version of each of ``PACKAGES``; what is not installed is left out."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _gpus() -> list[dict[str, object]]:
    """Name and memory (bytes) of every NVIDIA GPU; empty without a driver or without nvidia-ml-py."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [_gpu(pynvml.nvmlDeviceGetHandleByIndex(index)) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def _gpu(handle: object) -> dict[str, object]:
    import pynvml

    return {
        "name": pynvml.nvmlDeviceGetName(handle),
        "memory_bytes": pynvml.nvmlDeviceGetMemoryInfo(handle).total,
        "driver": pynvml.nvmlSystemGetDriverVersion(),
    }


def _git_state(folder: Path) -> dict[str, object] | None:
    """Commit and whether tracked files differ from it; ``None`` outside a checkout or without git."""
    status = _git(folder, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    if status is None:
        return None
    lines = status.splitlines()
    commits = [line.rpartition(" ")[2] for line in lines if line.startswith("# branch.oid")]
    return {"commit": commits[0] if commits else None, "dirty": any(not line.startswith("#") for line in lines)}


def _git(folder: Path, *arguments: str) -> str | None:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        result = subprocess.run(  # noqa: S603
            ["git", "-C", str(folder), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_SECONDS,
            env=environment,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout if result.returncode == 0 else None
