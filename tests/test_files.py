from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from loramill.errors import DiskFullError, LoramillError, StorageError, UnwritableError
from loramill.files import named_storage_errors, nearest_existing, publish_folder, write_atomic, write_json

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if not AS_ROOT or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount, and not in every container")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_file_is_written_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a.txt", "first")
    write_atomic(tmp_path / "a.txt", "二")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "二"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_threads_that_write_the_same_file_do_not_meet(tmp_path: Path) -> None:
    contents = [str(number) * 20_000 for number in range(8)]
    with ThreadPoolExecutor(len(contents)) as threads:
        list(threads.map(lambda content: write_atomic(tmp_path / "a.txt", content), contents * 5))
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") in contents
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_json_keeps_texts_readable_and_refuses_what_is_no_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"label": "正面", "loss": 0.5})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "正面" in text
    assert text.endswith("}\n")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["loss"] == 0.5


def test_a_full_disk_keeps_the_old_file(small_disk: Path) -> None:
    path = small_disk / "metrics.json"
    write_atomic(path, b"old" * 1000)
    with pytest.raises(DiskFullError) as caught:
        write_atomic(path, b"new" * 1_000_000)
    assert str(path) in caught.value.message
    assert "--resume" in caught.value.fix
    assert path.read_bytes() == b"old" * 1000
    assert [entry.name for entry in small_disk.iterdir()] == ["metrics.json"]
    write_atomic(path, b"new" * 1000)  # what the failed write took is free again
    assert path.read_bytes() == b"new" * 1000


def test_a_write_that_the_system_cuts_off_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    script = f"""
import resource, signal
from pathlib import Path
from loramill.errors import StorageError
from loramill.files import write_atomic
path = Path({str(path)!r})
write_atomic(path, b"old")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic(path, b"n" * 5000)
except StorageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert str(path) in done.stdout
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.json"]


def test_a_folder_that_may_not_be_written_has_a_name(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    with unwritable(locked), pytest.raises(UnwritableError) as caught:
        write_atomic(locked / "a.txt", "text")
    assert str(locked / "a.txt") in caught.value.message
    assert "LORAMILL_HOME" in caught.value.fix


@contextlib.contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """A folder without the permission to write; root, who may do all, gets a read-only file system."""
    if AS_ROOT:
        mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)]
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("root may write everywhere and may not mount here")
        yield
        subprocess.run(["umount", str(folder)], check=True)
    else:
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
        yield
        folder.chmod(stat.S_IRWXU)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, DiskFullError),
        (errno.EDQUOT, DiskFullError),
        (errno.EACCES, UnwritableError),
        (errno.EROFS, UnwritableError),
        (errno.EIO, StorageError),
    ],
)
def test_what_the_system_says_gets_a_name(tmp_path: Path, number: int, expected: type[LoramillError]) -> None:
    with pytest.raises(expected) as caught, named_storage_errors(tmp_path / "a"):
        raise OSError(number, os.strerror(number))
    assert type(caught.value) is expected
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("moment", range(12))
def test_a_kill_at_any_moment_leaves_the_old_file_or_the_new_one(tmp_path: Path, moment: int) -> None:
    path = tmp_path / "state.bin"
    script = f"""
from pathlib import Path
from loramill.files import write_atomic
path = Path({str(path)!r})
size = 300_000
for byte in range(10_000):
    write_atomic(path, bytes([byte % 256]) * size)
    print(byte, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        time.sleep(0.003 * moment)
        process.send_signal(signal.SIGKILL)
        lines = process.stdout.read().split()
    acknowledged = int(lines[-1]) if lines else 0
    content = path.read_bytes()
    assert len(content) == 300_000
    assert len(set(content)) == 1
    assert content[0] in (acknowledged % 256, (acknowledged + 1) % 256)


def make_folder(path: Path, value: str) -> Path:
    path.mkdir()
    for name in ("adapter.bin", "sub/tokenizer.json"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(value, encoding="utf-8")
    return path


def contents(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_a_folder_appears_whole_and_replaces_an_older_one(tmp_path: Path) -> None:
    final = tmp_path / "final_model"
    for value in ("old", "new"):
        publish_folder(make_folder(tmp_path / ".staged", value), final)
        assert contents(final) == {"adapter.bin": value, "sub/tokenizer.json": value}
    assert [path.name for path in tmp_path.iterdir()] == ["final_model"]


def test_a_folder_that_was_retired_in_a_crash_does_not_stand_in_the_way(tmp_path: Path) -> None:
    final = make_folder(tmp_path / "final_model", "old")
    make_folder(tmp_path / ".final_model.retired", "older")
    publish_folder(make_folder(tmp_path / ".staged", "new"), final)
    assert contents(final)["adapter.bin"] == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["final_model"]


@pytest.mark.parametrize("moment", range(8))
def test_a_kill_while_a_folder_is_replaced_loses_no_whole_one(tmp_path: Path, moment: int) -> None:
    script = f"""
import itertools
from pathlib import Path
from loramill.files import publish_folder
home = Path({str(tmp_path)!r})
for number in itertools.count():
    staged = home / ".staged"
    staged.mkdir()
    for name in "abcdef":
        (staged / name).write_text(str(number))
    publish_folder(staged, home / "final")
    print(number, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        time.sleep(0.005 * moment)
        process.send_signal(signal.SIGKILL)
        process.stdout.read()
    whole = tmp_path / "final"
    if not whole.exists():
        whole = tmp_path / ".final.retired"
    assert len(contents(whole)) == 6
    assert len(set(contents(whole).values())) == 1


def test_the_nearest_folder_that_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert nearest_existing(tmp_path / "not" / "yet") == tmp_path
    assert nearest_existing(tmp_path) == tmp_path
    monkeypatch.chdir(tmp_path)
    assert nearest_existing(Path("results")) == tmp_path
