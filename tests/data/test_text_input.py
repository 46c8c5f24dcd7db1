"""Files are bounded, decoded and refused before they can do harm."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from loramill.data.text_input import ReadLimits, open_for_arrow, open_text, scan_text
from loramill.errors import DataTooLargeError, UnreadableDataError

LIMITS = ReadLimits()
TEXTS = {
    "utf-8": "plain, naïve, 好看\n",
    "utf-8-sig": "\ufefftext,label\ngood,1\n",
    "utf-16": "text,label\ngood — gut,1\n",
    "utf-16-le": "text,label\ngood,1\n" * 20,
    "utf-16-be": "text,label\ngood,1\n" * 20,
    "cp1252": "Le café est très bon — “parfait”\nC'était déçu à l'hôtel\n",
    "gb18030": "这本书很好看，推荐\n质量太差了，不推荐\n",
    "big5": "這本書很好看\n品質太差了，不推薦\n",
    "shift_jis": "この本はとても良い\n品質が悪いと思います\n",
    "cp1251": "Очень хороший фильм\nПлохо, совсем не понравилось\n",
}


def content(path: Path) -> str:
    with open_text(path, scan_text(path, LIMITS), LIMITS) as stream:
        return stream.read().decode("utf-8")


@pytest.mark.parametrize("encoding", TEXTS)
def test_encodings_are_found(tmp_path: Path, encoding: str) -> None:
    text = TEXTS[encoding].lstrip("\ufeff")
    path = tmp_path / "rows.csv"
    path.write_bytes(text.encode(encoding))
    assert content(path) == text
    with open_for_arrow(path, scan_text(path, LIMITS), LIMITS) as stream:
        assert stream.read().decode("utf-8-sig") == text


def test_a_few_broken_bytes_in_utf8_are_damage_not_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("Grüße, Füße, Maß".encode() + b" \xff ok\n")
    facts = scan_text(path, LIMITS)
    assert (facts.encoding, facts.is_damaged) == ("utf-8", True)
    assert content(path) == "Grüße, Füße, Maß \ufffd ok\n"


def test_a_character_across_two_blocks_stays_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    text = "a" * ((1 << 20) - 1) + "\n" + "é好" * 400_000 + "\n"
    path.write_bytes(b"x" + text.encode())
    assert content(path) == "x" + text
    assert not scan_text(path, LIMITS).is_damaged


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_compressed_text_is_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows.csv{ending}"
    text = "".join(f"row {number},{number % 2}\n" for number in range(50_000)).encode()
    path.write_bytes(gzip.compress(text) if ending == ".gz" else pa.compress(text, codec="zstd", asbytes=True))
    if ending == ".zst":
        with pa.output_stream(str(path), compression="zstd") as stream:
            stream.write(text)
    assert content(path).encode() == text


def test_a_long_line_is_refused_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"text,label\nshort,1\n" + b"x" * 50_000_000 + b",1\n")
    with pytest.raises(DataTooLargeError, match="line 3"):
        scan_text(path, LIMITS)


def test_lines_that_end_in_carriage_returns_are_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"some text,1\r" * 2_000_000)
    assert scan_text(path, LIMITS).encoding == "utf-8"


def test_binary_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "picture.csv"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 100)
    with pytest.raises(UnreadableDataError, match="binary"):
        scan_text(path, LIMITS)


@pytest.mark.parametrize("damage", ["cut", "no gzip"])
def test_broken_compression_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "rows.csv.gz"
    packed = gzip.compress(b"some text,1\n" * 10_000)
    path.write_bytes(packed[:-30] if damage == "cut" else b"some text,1\n")
    with pytest.raises(UnreadableDataError, match="decompressed"):
        scan_text(path, LIMITS)


BOMB_READER = """
import re, sys
from pathlib import Path
from loramill.data.text_input import ReadLimits, scan_text
from loramill.errors import DataTooLargeError
try:
    scan_text(Path(sys.argv[1]), ReadLimits())
except DataTooLargeError as error:
    peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())
    print(error.code, int(peak[1]) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory of a process is read from /proc")
def test_a_bomb_of_ten_gigabytes_is_refused_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.csv.gz"
    block = gzip.compress(b"a good movie,1\n" * 70_000, compresslevel=9)
    with path.open("wb") as file:
        for _ in range(10_000):  # members one after another are one gzip file: 10.5 GB
            file.write(block)
    result = subprocess.run([sys.executable, "-c", BOMB_READER, str(path)], capture_output=True, text=True, check=True)
    code, megabytes = result.stdout.split()
    assert code == "data_too_large"
    assert int(megabytes) < 200


def test_the_limit_of_all_bytes_holds_without_compression(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"some text,1\n" * 200_000)
    with pytest.raises(DataTooLargeError, match="GiB"):
        scan_text(path, ReadLimits(max_bytes=1_000_000))
