"""Runs that save a model: its reload gate, without the seconds that a fresh process takes to import torch."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

import forked
from loramill.training import reload_gate

FRESH_PROCESSES = {"test_reload_gate.py", "test_final_model_in_peft.py", "test_processes.py"}
"""Here the gate is what it is for people; so it is with every run that a test starts as a command or as a job."""


@pytest.fixture(autouse=True)
def forked_gate(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that reloads a model is forked from one that has imported torch and read no model."""
    if request.path.name not in FRESH_PROCESSES:
        monkeypatch.setattr(reload_gate, "_run", _run_forked)


def _run_forked(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    request, answer = map(Path, command[-2:])
    return subprocess.CompletedProcess(command, forked.run(reload_gate.reload_logits, request, answer), "", "")
