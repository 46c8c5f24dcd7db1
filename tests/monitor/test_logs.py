from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from loramill.errors import StorageError
from loramill.monitor.logs import open_run_log

LINE = re.compile(r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z (DEBUG|INFO|WARNING|ERROR|CRITICAL) +(.*)$")


def messages(path: Path) -> list[str]:
    """What each line says after its time and level; every line has both."""
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    found = [LINE.match(line) for line in lines]
    assert all(found), lines
    return [match.group(2) for match in found if match]


def test_an_event_is_one_readable_line(tmp_path: Path) -> None:
    with open_run_log(tmp_path / "logs.txt") as log:
        log.info("data loaded", rows=500, source="my reviews.csv", loss=0.123456789, empty="")
    assert messages(tmp_path / "logs.txt") == [
        'data loaded  rows=500 source="my reviews.csv" loss=0.123457 empty=""',
    ]


def test_less_than_the_level_is_dropped(tmp_path: Path) -> None:
    with open_run_log(tmp_path / "logs.txt", "WARNING") as log:
        log.debug("one")
        log.info("two")
        log.warning("three")
        log.error("four")
    assert messages(tmp_path / "logs.txt") == ["three", "four"]


def test_no_text_can_forge_a_line_or_drive_the_terminal(tmp_path: Path) -> None:
    forged = "ok\r\n2026-01-01T00:00:00.000000Z INFO    promoted by admin\u2028\x1b[2J"
    with open_run_log(tmp_path / "logs.txt") as log:
        log.info(forged, text=forged, **{"k\ney": 1})
        log.bind(text=forged).error("bound")
    path = tmp_path / "logs.txt"
    assert len(messages(path)) == 2
    assert not set("\r\x1b\u2028") & set(path.read_text(encoding="utf-8"))


def test_secrets_are_hidden(tmp_path: Path) -> None:
    with open_run_log(tmp_path / "logs.txt") as log:
        log.info(
            "connect to postgresql://ann:s3cret@db/runs", url="redis://:s3cret@host", password="s3cret", tokens=870
        )
        try:
            raise OSError("cannot reach postgresql://ann:s3cret@db/runs")
        except OSError as error:
            log.exception("failed", error=error)
    text = (tmp_path / "logs.txt").read_text(encoding="utf-8")
    assert "tokens=870" in text
    assert "cannot reach" in text
    lines = [line for line in text.splitlines() if "raise OSError" not in line]  # the source line itself is no secret
    assert not any("s3cret" in line for line in lines)


def test_a_traceback_is_kept_and_cannot_forge_a_line(tmp_path: Path) -> None:
    with open_run_log(tmp_path / "logs.txt") as log:
        try:
            raise ValueError("row 3\n2026-01-01T00:00:00.000000Z INFO    all is well")
        except ValueError:
            log.exception("training failed", step=7)
    first, *rest = (tmp_path / "logs.txt").read_text(encoding="utf-8").splitlines()
    assert first.endswith("ERROR   training failed  step=7")
    assert all(line.startswith("    | ") for line in rest)
    assert any("test_logs.py" in line for line in rest)


def test_runs_in_one_process_do_not_share_a_log(tmp_path: Path) -> None:
    with open_run_log(tmp_path / "a.txt", "DEBUG") as a, open_run_log(tmp_path / "b.txt", "ERROR") as b:
        a.debug("only a")
        b.debug("nowhere")
        b.error("only b")
    a.info("after the end")
    assert messages(tmp_path / "a.txt") == ["only a"]
    assert messages(tmp_path / "b.txt") == ["only b"]


def test_opening_again_appends(tmp_path: Path) -> None:
    for message in ("first", "resumed"):
        with open_run_log(tmp_path / "logs.txt") as log:
            log.info(message)
    assert messages(tmp_path / "logs.txt") == ["first", "resumed"]


def test_threads_do_not_cut_each_others_lines(tmp_path: Path) -> None:
    with open_run_log(tmp_path / "logs.txt") as log:

        def chatter(name: str) -> None:
            for count in range(200):
                log.info(name * 50, count=count)

        threads = [threading.Thread(target=chatter, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = messages(tmp_path / "logs.txt")
    assert sorted(found) == sorted(f"{name * 50}  count={count}" for name in "abcd" for count in range(200))


def test_a_log_that_cannot_be_opened_has_a_name(tmp_path: Path) -> None:
    with pytest.raises(StorageError), open_run_log(tmp_path / "missing" / "logs.txt"):
        pass


def test_a_full_disk_loses_lines_and_does_not_end_the_run(tmp_path: Path) -> None:
    script = f"""
import resource, signal
from pathlib import Path
from loramill.monitor.logs import open_run_log
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
with open_run_log(Path({str(tmp_path / "logs.txt")!r})) as log:
    for step in range(100):
        log.info("step", step=step)
print("still here")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "still here\n"
    assert (tmp_path / "logs.txt").stat().st_size == 1000
