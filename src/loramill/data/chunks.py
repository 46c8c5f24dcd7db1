"""Rows as chunks: a few hundred rows each, cut where the content says so, named by their content.

Cutting at rows whose hash has a certain form (content-defined chunking, as in Muthitacharoen et al. 2001, "A
low-bandwidth network file system") makes a change in one place change only the chunks at that place: an insertion
does not move every later boundary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from loramill.arrays import from_numpy, valid_rows
from loramill.data.rows import Hashes, string_buffers
from loramill.errors import CorruptFileError

if TYPE_CHECKING:
    import pyarrow as pa

MIN_ROWS = 32
MEAN_ROWS = 256
MAX_ROWS = 1024
NULL = -1


@dataclass(frozen=True)
class Chunk:
    """A run of rows, and the bytes that stand for them."""

    id: str
    rows: int
    first_row: int
    content: bytes


def cut_points(row_hashes: Hashes) -> list[int]:
    """Ends of the chunks, ascending; the last one is the number of rows."""
    rows = len(row_hashes)
    natural = np.flatnonzero(row_hashes % np.uint64(MEAN_ROWS) == 0) + 1
    ends: list[int] = []
    start = 0
    for end in [*natural.tolist(), rows]:
        while end - start > MAX_ROWS:
            start += MAX_ROWS
            ends.append(start)
        if end - start >= MIN_ROWS or (end == rows and end > start):
            ends.append(end)
            start = end
    return ends


def encode_chunk(columns: Sequence[pa.LargeStringArray], start: int, rows: int) -> bytes:
    """Rows as bytes, the same on every machine.

    Layout, little-endian: number of rows and of columns (uint32 each); then for each column the byte length of every
    value (int32, -1 for null); then for each column its values' UTF-8 bytes.
    """
    parts = [np.asarray([rows, len(columns)], dtype="<u4").tobytes()]
    contents = []
    for column in columns:
        part = column.slice(start, rows)
        data, offsets = string_buffers(part)
        lengths = np.diff(offsets).astype("<i4")
        if part.null_count:
            lengths[~valid_rows(part)] = NULL
        parts.append(lengths.tobytes())
        contents.append(data[offsets[0] : offsets[-1]])
    return b"".join([*parts, *contents])


def decode_chunk(content: bytes, chunk_id: str) -> list[pa.LargeStringArray]:
    """The columns of a chunk.

    Raises:
        CorruptFileError: the content does not have the id.
    """
    import pyarrow as pa

    if chunk_id_of(content) != chunk_id:
        raise CorruptFileError(
            f"Chunk {chunk_id} of the data store is damaged.", fix="Restore the data folder from a backup."
        )
    rows, count = np.frombuffer(content, dtype="<u4", count=2).tolist()
    lengths = np.frombuffer(content, dtype="<i4", count=rows * count, offset=8).reshape(count, rows)
    position = 8 + 4 * rows * count
    columns = []
    for sizes in lengths:
        offsets = np.zeros(rows + 1, dtype=np.int64)
        np.cumsum(np.maximum(sizes, 0), out=offsets[1:])
        data = content[position : position + int(offsets[-1])]
        position += len(data)
        valid = from_numpy(sizes >= 0).buffers()[1] if (sizes < 0).any() else None
        columns.append(pa.LargeStringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(data), valid))
    return columns


def chunk_id_of(content: bytes) -> str:
    """BLAKE3 of a chunk's bytes, 32 hexadecimal digits."""
    return blake3(content).hexdigest(16)


def chunks_of(
    columns: Sequence[pa.LargeStringArray],
    row_hashes: Hashes,
    known_starting_with: Callable[[int], Sequence[tuple[str, int]]],
) -> Iterator[Chunk]:
    """Cut rows into chunks, taking a stored chunk that is a shorter beginning of the next one where there is one.

    So an append stores the appended rows only, not the whole last chunk again.

    Args:
        columns: the rows, one array a column.
        row_hashes: a stable hash of each row ``[rows]``.
        known_starting_with: first row's hash -> (id, rows) of stored chunks that begin with such a row.
    """
    start = 0
    for end in cut_points(row_hashes):
        while start < end:
            chunk = _stored_beginning(columns, start, end, known_starting_with(int(row_hashes[start])))
            if chunk is None:
                content = encode_chunk(columns, start, end - start)
                chunk = Chunk(chunk_id_of(content), end - start, start, content)
            yield chunk
            start += chunk.rows


def rows_id(columns: Sequence[pa.LargeStringArray]) -> str:
    """BLAKE3 of all rows, 32 hexadecimal digits: the same however they are cut into chunks."""
    digests = []
    for column in columns:
        data, offsets = string_buffers(column)
        digest = blake3(np.asarray([len(column)], dtype="<u8").tobytes())
        lengths = np.diff(offsets)
        lengths[_nulls(column)] = NULL
        digest.update(lengths.astype("<i8").tobytes())
        digest.update(data[offsets[0] : offsets[-1]])
        digests.append(digest.digest())
    return blake3(b"".join(digests)).hexdigest(16)


def _nulls(column: pa.LargeStringArray) -> NDArray[np.bool_]:
    return ~valid_rows(column)


def _stored_beginning(
    columns: Sequence[pa.LargeStringArray], start: int, end: int, candidates: Sequence[tuple[str, int]]
) -> Chunk | None:
    for chunk_id, rows in sorted(candidates, key=lambda candidate: -candidate[1]):
        if rows < end - start:
            content = encode_chunk(columns, start, rows)
            if chunk_id_of(content) == chunk_id:
                return Chunk(chunk_id, rows, start, content)
    return None
