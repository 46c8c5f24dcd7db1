"""All services in containers: built from a copy of the checkout, started with the Makefile, ended without a trace."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from deployment_files import ROOT
from loramill.client import Client

BUILD_SECONDS = 1500
START_SECONDS = 300
PORTS = ("API_PORT", "UI_PORT", "INFERENCE_PORT", "REDIS_PORT")


def engine_answers() -> bool:
    """Whether there is Docker at all: on a machine without it, containers cannot be tested."""
    if shutil.which("docker") is None:
        return False
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0


def docker(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip()


def wait_until(true: Callable[[], bool], what: str, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"{what}: not after {seconds} s"
        time.sleep(0.3)


class Stack:
    """One deployment, with ports, images and volumes of its own.

    Args:
        checkout: a copy of the project, where ``.env`` and images are made.
        wheelhouse: folder with a wheel of torch for CPUs.
    """

    def __init__(self, checkout: Path, wheelhouse: Path) -> None:
        self.checkout = checkout
        self.project = f"loramill-test-{secrets.token_hex(3)}"
        self.environment = {
            **os.environ,
            **{name: str(free_port()) for name in PORTS},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "COMPOSE_PROJECT_NAME": self.project,
            "IMAGE_PREFIX": "loramill-test",
            "WHEELHOUSE": str(wheelhouse),
            "TORCH_CPU_INDEX": "",
        }

    def make(self, *arguments: str, seconds: float = START_SECONDS) -> str:
        return self._run("make", *arguments, seconds=seconds)

    def compose(self, *arguments: str, seconds: float = START_SECONDS) -> str:
        return self._run("docker-compose", *arguments, seconds=seconds)

    def _run(self, *command: str, seconds: float) -> str:
        done = subprocess.run(
            command,
            cwd=self.checkout,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        return done.stdout

    def url(self, port: str) -> str:
        return f"http://127.0.0.1:{self.environment[port]}"

    def secret(self, name: str) -> str:
        lines = (self.checkout / ".env").read_text(encoding="utf-8").splitlines()
        return next(line.partition("=")[2] for line in lines if line.startswith(f"{name}="))

    def containers(self, service: str = "") -> list[str]:
        labels = [f"label=com.docker.compose.project={self.project}"]
        if service:
            labels.append(f"label=com.docker.compose.service={service}")
        return docker("ps", "--quiet", *(part for label in labels for part in ("--filter", label))).split()

    def inspect(self, container: str) -> Any:
        return json.loads(docker("inspect", container))[0]

    def redis(self, *command: str) -> str:
        (container,) = self.containers("redis")
        line = 'REDISCLI_AUTH="$REDIS_PASSWORD" exec redis-cli "$@"'
        return docker("exec", container, "sh", "-c", line, "redis-cli", *command)

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        """The administrator's."""
        with Client(self.url("API_PORT")) as client:
            client.sign_in("admin", self.secret("LORAMILL_ADMIN_PASSWORD"))
            yield client

    def kill(self, service: str) -> None:
        """As the kernel kills: the engine learns of it afterwards, and does what the restart policy says."""
        (container,) = self.containers(service)
        pid = self.inspect(container)["State"]["Pid"]
        if os.geteuid() == 0 and Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGKILL)
        else:  # the engine is in a virtual machine
            docker("kill", container)
            docker("start", container)

    def leftovers(self) -> str:
        label = f"label=com.docker.compose.project={self.project}"
        found = [docker(kind, "ls", "--quiet", "--filter", label) for kind in ("volume", "network")]
        return "".join([docker("ps", "--all", "--quiet", "--filter", label), *found])


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def copy_checkout(target: Path) -> None:
    """What is committed, and what could be: neither results nor secrets."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def download_torch(folder: Path) -> None:
    """The wheel that this machine's pip finds; ``TORCH_ARGS`` may name an index with CPU builds, as in the Makefile."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    extra = os.environ.get("TORCH_ARGS", "").split()
    subprocess.run([*command, *extra, "--requirement", str(ROOT / "requirements" / "torch.txt")], check=True)
