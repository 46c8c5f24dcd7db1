"""Writing files so that a crash, a kill or a full disk never leaves half of one."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from loramill.errors import DiskFullError, StorageError, UnwritableError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextlib.contextmanager
def named_storage_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system says of ``path`` into an error with a name and a way out.

    Raises:
        DiskFullError: no space or quota left.
        UnwritableError: no permission, or a read-only file system.
        StorageError: anything else.
    """
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise DiskFullError(
                f"No space left to write {path}.", fix="Free space there, then go on with --resume."
            ) from error
        if error.errno in UNWRITABLE:
            raise UnwritableError(
                f"{path} cannot be written.", fix="Change its permissions, or choose another folder with LORAMILL_HOME."
            ) from error
        raise StorageError(f"{path} cannot be written: {error}") from error


@contextlib.contextmanager
def named_read_errors(path: Path) -> Iterator[None]:
    """The same for reading; a file that is not there stays ``FileNotFoundError``, which callers have an answer to.

    Raises:
        StorageError: no permission, or anything else.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}.", fix="Change its permissions.") from error


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a whole file or leave the old one: staged beside it, flushed to disk, renamed.

    Of several at the same time, threads too, each is whole, and the last one stays.

    Raises:
        DiskFullError, UnwritableError, StorageError: the old file is untouched.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    staged = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    with named_storage_errors(path):
        try:
            with staged.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            staged.replace(path)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_json(path: Path, value: object) -> None:
    """``write_atomic`` for one JSON document; NaN and infinity are refused."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def publish_folder(staged: Path, final: Path) -> None:
    """Make a fully written folder appear under its final name at once, replacing an older one.

    Every file of ``staged`` is flushed to disk first, so that a folder with the final name is whole.
    """
    with named_storage_errors(final):
        for file in sorted(staged.rglob("*")):
            if file.is_file():
                sync_file(file)
        sync_folder(staged)
        if final.exists():
            retired = final.with_name(f".{final.name}.retired")
            shutil.rmtree(retired, ignore_errors=True)
            final.rename(retired)
            try:
                staged.rename(final)
            except OSError:
                retired.rename(final)
                raise
            shutil.rmtree(retired, ignore_errors=True)
        else:
            staged.rename(final)
        sync_folder(final.parent)


def sync_file(path: Path) -> None:
    """Flush one file to disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Flush a folder's entries (the names in it) to disk; a no-op where folders cannot be opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # Windows does not open folders
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; 0 when there is none. Links count as what they are, not as what they name."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118
    return total


def nearest_existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists: what can be asked for space and permission."""
    absolute = folder.absolute()
    return next(path for path in (absolute, *absolute.parents) if path.exists())
