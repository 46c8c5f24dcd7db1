from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loramill.experiments.environment import describe_environment


def test_it_names_versions_hardware_and_command() -> None:
    environment = describe_environment()
    assert environment["packages"]["loramill"]
    assert environment["memory_bytes"] > 2**28
    assert environment["cpu"]["threads"] >= 1
    json.dumps(environment)


def test_it_imports_nothing_that_it_names() -> None:
    script = (
        "import sys; from loramill.experiments.environment import describe_environment; describe_environment()\n"
        "sys.exit(bool({'torch', 'transformers', 'numpy', 'pyarrow', 'sqlalchemy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_it_costs_a_run_nothing_to_speak_of() -> None:
    durations = []
    for _ in range(5):
        start = time.perf_counter()
        describe_environment()
        durations.append(time.perf_counter() - start)
    assert min(durations) <= 0.1


def test_git_commit_and_local_changes(tmp_path: Path) -> None:
    assert describe_environment(tmp_path)["git"] is None

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-qm", "first")
    assert describe_environment(tmp_path)["git"] == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "file").write_text("2")
    assert describe_environment(tmp_path)["git"]["dirty"] is True


def test_secrets_on_the_command_line_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["loramill", "train", "--hf-token", "abc123", "redis://user:pw@host/0"])
    shown = " ".join(describe_environment()["command"])
    assert shown.startswith("loramill train")
    assert not {"abc123", "user:pw"} & set(shown.replace("@", " ").replace("//", " ").split())
