"""Unpacking what strangers send: zip and tar archives, of which only data files of known names are taken.

Nothing in an archive is believed: its names decide about no path, and its bytes are counted while it is unpacked.
Links, devices, encrypted members and archives within archives are refused.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from loramill.data.readers import file_format, plain_name
from loramill.data.sources import EVAL_NAMES
from loramill.data.text_input import BLOCK, ReadLimits
from loramill.errors import DataTooLargeError, UnreadableDataError
from loramill.files import named_storage_errors

ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar")
MAX_MEMBERS = 100
RATIO_LOOKED_AT_FROM = 64 * 2**20
"""Bytes; a small archive of text may well have been packed a thousandfold."""

SPLITS = ("train", *EVAL_NAMES)
BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, NotImplementedError)
"""What the standard library lets through when an archive is damaged, encrypted or of an unknown method."""


@dataclass(frozen=True)
class _Member:
    name: str
    open: Callable[[], IO[bytes]]


class _Allowance:
    """Bytes that all members together may come to."""

    def __init__(self, archive: Path, limits: ReadLimits) -> None:
        packed = archive.stat().st_size
        self._left = min(limits.max_bytes, max(RATIO_LOOKED_AT_FROM, packed * limits.max_ratio))

    def take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise DataTooLargeError("The archive grows beyond what may be unpacked.", fix="Send less, or plain files.")


def is_archive(name: str) -> bool:
    """Whether a file of this name would be unpacked."""
    return name.lower().endswith(ARCHIVES)


def stored_name(name: str) -> str | None:
    """The name under which a file of strangers is kept, made of known words; ``None`` when it cannot be data."""
    if is_archive(name):
        return "archive" + next(ending for ending in ARCHIVES if name.lower().endswith(ending))
    known = file_format(Path(name))
    if known is None:
        return None
    compression = "" if plain_name(Path(name)) == Path(name) else Path(name).suffix.lower()
    return f"train.{known}{compression}"


def unpack(archive: Path, folder: Path, limits: ReadLimits | None = None) -> list[str]:
    """Write the data files of an archive into a folder as ``train.*``, ``validation.*`` ...; the archive stays.

    A single data file may have any name, and is the training split. Returns the names written.

    Raises:
        UnreadableDataError: it is broken, holds something else, or names two files for one split.
        DataTooLargeError: it has too many members, or grows beyond the limits.
        DiskFullError, UnwritableError: the files cannot be written.
    """
    limits = limits or ReadLimits()
    try:
        with _opened(archive, _Allowance(archive, limits)) as members:
            targets = _targets([member.name for member in members])
            allowed = _Allowance(archive, limits)
            for member in members:
                if member.name in targets:
                    _copy(member, folder / targets[member.name], allowed)
    except BROKEN as error:
        raise UnreadableDataError(f"The archive is broken: {error}.", fix="Pack it again.") from error
    return sorted(targets.values())


def _copy(member: _Member, target: Path, allowed: _Allowance) -> None:
    with member.open() as source:
        with named_storage_errors(target):
            file = target.open("xb")
        with file:
            while block := source.read(BLOCK):
                allowed.take(len(block))
                with named_storage_errors(target):
                    file.write(block)


@contextmanager
def _opened(archive: Path, allowed: _Allowance) -> Iterator[list[_Member]]:
    """The members of an archive that are files."""
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(archive) as opened:
            _check_number(len(opened.infolist()))
            yield [_zip_member(opened, info) for info in opened.infolist() if not info.is_dir()]
    else:
        with tarfile.open(archive, "r:*") as tar:
            yield [_tar_member(tar, info) for info in _headers(tar, allowed) if not info.isdir()]


def _headers(tar: tarfile.TarFile, allowed: _Allowance) -> Iterator[tarfile.TarInfo]:
    """Every header. Going on to the next one unpacks what lies between, so its size is counted before."""
    for number, info in enumerate(tar, start=1):
        _check_number(number)
        allowed.take(info.size)
        yield info


def _check_number(members: int) -> None:
    if members > MAX_MEMBERS:
        raise DataTooLargeError(
            f"The archive has more than {MAX_MEMBERS} members.", fix="Pack one file for each split."
        )


def _zip_member(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    kind = info.external_attr >> 28
    if kind not in (0, 0o10):  # what Unix calls neither unknown nor a plain file
        raise UnreadableDataError("The archive holds a link or a device.", fix="Pack plain files.")
    return _Member(info.filename, lambda: opened.open(info))


def _tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    if not info.isreg():
        raise UnreadableDataError("The archive holds a link or a device.", fix="Pack plain files.")

    def extract() -> IO[bytes]:
        file = tar.extractfile(info)
        assert file is not None  # noqa: S101 - a regular member has content
        return file

    return _Member(info.name, extract)


def _targets(names: list[str]) -> dict[str, str]:
    """Member -> name of its file in the folder; what file managers add is left out.

    Raises:
        UnreadableDataError: no member, a strange one, two for one split, or none to train on.
    """
    wanted = [name for name in names if not _is_clutter(name)]
    for name in wanted:
        _check_member(name)
    targets = {name: _target(name, is_only_one=len(wanted) == 1) for name in wanted}
    splits = [_split_of(target) for target in targets.values()]
    if len(set(splits)) < len(wanted):
        raise UnreadableDataError("The archive has several files for one split.", fix="Pack one file for each split.")
    if "train" not in splits:
        raise UnreadableDataError("The archive has no train.* file.", fix="Name the file to train on train.*.")
    return targets


def _check_member(name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise UnreadableDataError("The archive names a path outside of itself.", fix="Pack plain file names.")
    if is_archive(name) or stored_name(path.name) is None:
        raise UnreadableDataError(
            f"The archive holds {ascii(name)[:80]}, which is no data file.",
            fix="Pack csv, tsv, jsonl or parquet files named train.*, validation.* and test.*, nothing else.",
        )


def _target(name: str, *, is_only_one: bool) -> str:
    path = PurePosixPath(name)
    split = _split_of(path.name.lower())
    if split not in SPLITS and not is_only_one:
        raise UnreadableDataError(
            f"{ascii(name)[:80]} is the name of no split.", fix=f"Use one of {', '.join(SPLITS)}."
        )
    kept = str(stored_name(path.name))
    return kept.replace("train", split if split in SPLITS and not is_only_one else "train", 1)


def _split_of(name: str) -> str:
    return plain_name(Path(name)).stem


def _is_clutter(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or (bool(parts) and parts[-1].startswith(".") and parts[-1] != "..")
