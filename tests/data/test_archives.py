from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from loramill.data.archives import stored_name, unpack
from loramill.data.text_input import ReadLimits
from loramill.errors import DataTooLargeError, UnreadableDataError

MakeArchive = Callable[..., Path]


def zipped(folder: Path, **files: bytes) -> Path:
    path = folder / "archive.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(folder: Path, **files: bytes) -> Path:
    path = folder / "archive.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_splits_are_taken_from_wherever_they_lie(pack: MakeArchive, tmp_path: Path) -> None:
    archive = pack(tmp_path, **{"d/Train.csv": b"a", "d/test.jsonl.gz": b"b", "__MACOSX/._x": b"", "d/.DS_Store": b""})
    out = tmp_path / "out"
    out.mkdir()
    assert unpack(archive, out) == ["test.jsonl.gz", "train.csv"]
    assert (out / "train.csv").read_bytes() == b"a"


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize(
    "names",
    [
        ["../train.csv"], ["/train.csv"], ["a/../../train.csv"], ["C:train.csv"], ["..\\train.csv"], ["train.exe"],
        ["train.csv", "inner.zip"], ["train.csv", "notes.txt"], ["train.csv", "a/train.tsv"],
        ["validation.csv", "x.csv"], [], ["validation.csv", "test.csv"],
    ],
)  # fmt: skip
def test_what_is_not_plain_data_is_refused_and_nothing_leaves_the_folder(
    pack: MakeArchive, names: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "inside" / "out"
    out.mkdir(parents=True)
    archive = pack(tmp_path, **dict.fromkeys(names, b"x"))
    with pytest.raises(UnreadableDataError):
        unpack(archive, out)
    assert not [*out.iterdir()]
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_bomb_is_refused_before_it_fills_the_disk(pack: MakeArchive, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    archive = pack(tmp_path, **{"train.csv": b"0" * 5_000_000})
    with pytest.raises(DataTooLargeError):
        unpack(archive, out, ReadLimits(max_bytes=2_000_000))
    assert sum(path.stat().st_size for path in out.iterdir()) <= 2_000_000


def test_a_zip_that_lies_about_sizes_is_counted_as_it_grows(tmp_path: Path) -> None:
    archive = zipped(tmp_path, **{"train.csv": b"0" * 5_000_000})
    content = archive.read_bytes()
    archive.write_bytes(content.replace((5_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises((DataTooLargeError, UnreadableDataError)):
        unpack(archive, tmp_path, ReadLimits(max_bytes=2_000_000))


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_too_many_members_are_refused(pack: MakeArchive, tmp_path: Path) -> None:
    with pytest.raises(DataTooLargeError):
        unpack(pack(tmp_path, **{f"{number}.csv": b"" for number in range(200)}), tmp_path)


def test_links_and_broken_archives_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "archive.tar", "w") as tar:
        link = tarfile.TarInfo("train.csv")
        link.type, link.linkname = tarfile.LNKTYPE, "/etc/passwd"
        tar.addfile(link)
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        info = zipfile.ZipInfo("train.csv")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    (tmp_path / "archive.tgz").write_bytes(b"\x1f\x8b broken")
    for name in ("archive.tar", "archive.zip", "archive.tgz"):
        with pytest.raises(UnreadableDataError):
            unpack(tmp_path / name, tmp_path)
    assert not (tmp_path / "train.csv").exists()


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("Reviews.CSV", "train.csv"), ("a.b.jsonl.GZ", "train.jsonl.gz"), ("x.tar.gz", "archive.tar.gz"),
        ("../../etc/rows.tsv", "train.tsv"), ("rows", None), ("rows.csv/..", None), ("", None), ("rows.gz", None),
    ],
)  # fmt: skip
def test_a_name_decides_about_the_format_and_nothing_else(name: str, kept: str | None) -> None:
    assert stored_name(name) == kept
