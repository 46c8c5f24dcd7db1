from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import redis

from loramill.errors import ConfigError
from loramill.settings import Settings
from loramill.tasks.broker import EmbeddedBroker, RemoteBroker, open_broker


@pytest.fixture
def broker(tmp_path: Path) -> EmbeddedBroker:
    return EmbeddedBroker(tmp_path / "queue")


def test_the_server_runs_for_as_long_as_somebody_uses_it(broker: EmbeddedBroker) -> None:
    with broker.in_use():
        with EmbeddedBroker(broker.folder).in_use():
            first = broker.server_pid()
        assert broker.client.ping(), "the other user is still there"
        assert broker.server_pid() == first
    assert broker.server_pid() is None
    assert first is not None
    assert not runs(first)


def runs(pid: int) -> bool:
    """A process that nobody has taken notice of yet has ended, too."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_twenty_who_ask_at_once_get_one_server(broker: EmbeddedBroker) -> None:
    with ThreadPoolExecutor(20) as pool:
        others = [EmbeddedBroker(broker.folder) for _ in range(20)]
        with broker.in_use():
            broker.client.shutdown(nosave=True)
            list(pool.map(EmbeddedBroker.ensure_running, others))
            lines = (" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))
            servers = [line for line in lines if str(broker.socket) in line]
            assert len(servers) == 1


def test_messages_outlive_a_killed_server(broker: EmbeddedBroker) -> None:
    with broker.in_use():
        broker.client.lpush("jobs", "a")
        broker.client.waitaof(1, 0, 5000)
        pid = broker.server_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        broker.ensure_running()
        assert broker.client.lrange("jobs", 0, -1) == [b"a"]


def test_a_server_that_is_gone_is_noticed_at_once(broker: EmbeddedBroker) -> None:
    with broker.in_use():
        pid = broker.server_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=30)
        before = time.monotonic()
        with pytest.raises(redis.ConnectionError):
            broker.client.ping()
        assert time.monotonic() - before < 5.0, "nobody starts it again while its client waits"


def test_a_server_whose_users_were_killed_is_used_again_and_ended(broker: EmbeddedBroker) -> None:
    script = (
        "import sys, time; from pathlib import Path; from loramill.tasks.broker import EmbeddedBroker\n"
        "with EmbeddedBroker(Path(sys.argv[1])).in_use(): print('up', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(broker.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == b"up\n"
        user.kill()
    orphan = broker.server_pid()
    assert orphan is not None
    with broker.in_use():
        assert broker.server_pid() == orphan
    assert broker.server_pid() is None


def test_a_pidfile_that_names_a_stranger_ends_nobody(broker: EmbeddedBroker) -> None:
    broker.folder.mkdir()
    (broker.folder / "server.pid").write_text(str(os.getpid()))
    assert broker.server_pid() is None
    with broker.in_use():
        assert broker.client.ping()


def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / ("long" * 30))
    with broker.in_use():
        assert broker.client.ping()
        assert len(os.fsencode(broker.socket)) <= 100
        assert oct(broker.socket.parent.stat().st_mode & 0o777) == "0o700"


def test_a_server_of_others_is_left_alone(tmp_path: Path, broker: EmbeddedBroker) -> None:
    settings = Settings(home=tmp_path, redis_url="redis://127.0.0.1:1/0")  # type: ignore[call-arg]
    with open_broker(settings) as remote:
        assert isinstance(remote, RemoteBroker)
        remote.ensure_running()
    assert not (tmp_path / ".loramill").exists()


@pytest.mark.parametrize("url", ["s3cret", "http://:s3cret@host", "redis://:s3cret@host:port", "unix://s3cret"])
def test_an_address_of_no_server_is_named_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match="REDIS_URL: must be redis://") as caught:
        RemoteBroker(url)
    assert "s3cret" not in str(caught.value)
