"""Files of text as a stream of UTF-8 bytes: decompressed, decoded and bounded, never whole in memory.

Nothing is believed about a file: not its encoding, not its size after decompression, not its line lengths.
"""

from __future__ import annotations

import codecs
import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import numpy as np

from loramill.data.encodings import Utf8Counter, encoding_of_head, legacy_encoding
from loramill.errors import DataTooLargeError, UnreadableDataError

if TYPE_CHECKING:
    import pyarrow as pa

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
BLOCK = 1 << 20
HEAD = 1 << 18


@dataclass(frozen=True)
class ReadLimits:
    """Bounds that turn a hostile file into a refusal.

    Attributes:
        max_bytes: bytes after decompression.
        max_line_bytes: bytes of one line.
        max_columns: columns of a table, keys of a JSON object.
        max_ratio: bytes after decompression over bytes before, looked at beyond 64 MiB.
    """

    max_bytes: int = 2 * 2**30
    max_line_bytes: int = 16 * 2**20
    max_columns: int = 1000
    max_ratio: int = 100


@dataclass(frozen=True)
class TextFacts:
    """What one pass over a file shows.

    Attributes:
        encoding: Python's name of the encoding.
        is_damaged: some bytes are not valid in it; they become U+FFFD.
        head: the first characters, cut at a line end when there is one.
    """

    encoding: str
    is_damaged: bool
    head: str


class BoundedFile:
    """The decompressed bytes of a file; raises ``DataTooLargeError`` instead of going beyond the limits."""

    def __init__(self, path: Path, limits: ReadLimits) -> None:
        self._path = path
        self._limits = limits
        self._file, self._packed = _open(path)
        self._read_bytes = 0

    def __enter__(self) -> BoundedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, size: int = BLOCK) -> bytes:
        """At most ``size`` more bytes; none at the end."""
        try:
            block = self._file.read(size)
        except (OSError, EOFError, ValueError) as error:
            raise UnreadableDataError(
                f"{self._path.name} cannot be decompressed: {error}.", fix="Compress the file again."
            ) from None
        self._read_bytes += len(block)
        self._check()
        return block

    def close(self) -> None:
        self._file.close()
        self._packed.close()

    def _check(self) -> None:
        if self._read_bytes > self._limits.max_bytes:
            raise DataTooLargeError(
                f"{self._path.name} has more than {self._limits.max_bytes / 2**30:.1f} GiB of rows.",
                fix="Split it into several files, or sample it first.",
            )
        if self._read_bytes > 2**26 and self._read_bytes > self._limits.max_ratio * self._packed.tell():
            raise DataTooLargeError(
                f"{self._path.name} expands to more than {self._limits.max_ratio} times its size.",
                fix="Decompress it yourself and look at it: this is what a decompression bomb looks like.",
            )


class Utf8Stream(io.RawIOBase):
    """The same text as UTF-8, whatever its encoding; bytes that are not valid become U+FFFD."""

    def __init__(self, raw: BoundedFile, encoding: str) -> None:
        self._raw = raw
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._pending = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        ended = False
        while not self._pending and not ended:
            block = self._raw.read()
            ended = not block
            self._pending = memoryview(self._decoder.decode(block, final=ended).encode("utf-8", "replace"))
        count = min(len(buffer), len(self._pending))
        buffer[:count] = self._pending[:count]
        self._pending = self._pending[count:]
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def scan_text(path: Path, limits: ReadLimits) -> TextFacts:
    """Look at a whole file once, in bounded memory: find its encoding, refuse what is too large or no text.

    Raises:
        DataTooLargeError: a line, or all of it, is beyond the limits.
        UnreadableDataError: it is binary.
    """
    head = b""
    valid = Utf8Counter()
    lines = _LineLengths(path, limits.max_line_bytes)
    with BoundedFile(path, limits) as file:
        for block in _blocks(file):
            if not head:
                head = block[:HEAD]
                encoding = encoding_of_head(path, head)
            lines.add(block)
            valid.add(block)
    if not head:
        return TextFacts("utf-8", is_damaged=False, head="")
    if encoding is None:
        encoding = "utf-8" if valid.is_probable else legacy_encoding(valid.sample or head)
    is_damaged = encoding.startswith("utf-8") and valid.invalid > 0
    return TextFacts(encoding, is_damaged, _decoded_head(head, encoding))


def open_text(path: Path, facts: TextFacts, limits: ReadLimits) -> Utf8Stream:
    """The file's text as a stream of UTF-8 bytes."""
    return Utf8Stream(BoundedFile(path, limits), facts.encoding)


def open_for_arrow(path: Path, facts: TextFacts, limits: ReadLimits) -> pa.NativeFile:
    """The file's text as UTF-8, for Arrow's own threads.

    They read ahead, and may still do so when parsing has failed: a stream in Python would be called at a time when
    the interpreter is already gone. So text in another encoding is brought into memory first.
    """
    import pyarrow as pa

    if facts.encoding in ("utf-8", "utf-8-sig") and not facts.is_damaged:
        return pa.input_stream(str(path), compression=COMPRESSIONS.get(path.suffix.lower()))
    with open_text(path, facts, limits) as stream:
        return pa.BufferReader(stream.read())


class _LineLengths:
    """Refuses a line longer than the limit, without keeping it."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path, self._limit = path, limit
        self._open_bytes = 0
        self._line = 1

    def add(self, block: bytes) -> None:
        data = np.frombuffer(block, dtype=np.uint8)
        ends = np.flatnonzero((data == 10) | (data == 13))
        edges = np.concatenate(([-1 - self._open_bytes], ends, [len(block)]))
        lengths = np.diff(edges)
        longest = int(lengths.argmax())
        if lengths[longest] > self._limit:
            raise DataTooLargeError(
                f"{self._path.name} has a line of more than {self._limit / 2**20:.0f} MiB (line {self._line + longest} "
                "or near it).",
                fix="Shorten that line; a text that long cannot be trained on. An unclosed quote can be the cause.",
            )
        self._open_bytes = int(lengths[-1]) - 1
        self._line += len(ends)


def _open(path: Path) -> tuple[IO[bytes], IO[bytes]]:
    """(decompressed bytes, the file as it is on disk): the same for a file that is not compressed."""
    compression = COMPRESSIONS.get(path.suffix.lower())
    if compression == "gzip":
        packed = path.open("rb")
        return cast(IO[bytes], gzip.GzipFile(fileobj=packed)), packed
    if compression == "zstd":
        import pyarrow as pa

        file = pa.OSFile(str(path))
        return pa.CompressedInputStream(file, "zstd"), file
    plain = path.open("rb")
    return plain, plain


def _blocks(file: BoundedFile) -> Iterator[bytes]:
    while block := file.read():
        yield block


def _decoded_head(head: bytes, encoding: str) -> str:
    text = codecs.getincrementaldecoder(encoding)("replace").decode(head)
    cut = max(text.rfind("\n"), text.rfind("\r"))
    return text[: cut + 1] if len(head) == HEAD and cut > 0 else text
