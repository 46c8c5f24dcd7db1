"""Chunks on disk, in packs: one immutable file for all chunks that one version brought along.

A pack is written under another name, flushed and renamed, so a pack with its own name is whole. Its index is its last
part. Nothing refers to a pack before it is on disk, and nothing is deleted before its replacement is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from loramill.data.chunks import Chunk
from loramill.errors import CorruptFileError
from loramill.files import named_read_errors, named_storage_errors, sync_folder

if TYPE_CHECKING:
    import pyarrow as pa

MAGIC = b"LMPACK1\n"
FOOTER = len(MAGIC) + 8


@dataclass(frozen=True)
class Place:
    """Where a chunk lies: ``packed`` bytes at ``offset`` of a pack, ``size`` bytes once decompressed."""

    pack: Path
    offset: int
    packed: int
    size: int
    rows: int
    first_hash: int


class ChunkStore:
    """Every pack of a folder, and where in them each chunk lies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places: dict[str, Place] = {}
        self._by_first_hash: dict[int, list[tuple[str, int]]] = {}
        for pack in sorted(folder.glob("*.pack")):
            self._register(read_index(pack))

    def __contains__(self, chunk_id: str) -> bool:
        return chunk_id in self._places

    def starting_with(self, row_hash: int) -> list[tuple[str, int]]:
        """(id, rows) of chunks whose first row has this hash."""
        return self._by_first_hash.get(row_hash, [])

    def add(self, chunks: Iterable[tuple[Chunk, int]], progress: list[tuple[str, int]]) -> int:
        """Store the chunks that are not there yet, in one new pack.

        Args:
            chunks: each with the hash of its first row.
            progress: receives (id, rows) of every chunk, stored now or before.

        Returns:
            Bytes of the new pack; 0 when every chunk was there.
        """
        with named_storage_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        with named_storage_errors(self._folder), PackWriter(self._folder) as pack:
            for chunk, first_hash in chunks:
                progress.append((chunk.id, chunk.rows))
                if chunk.id not in self._places and chunk.id not in pack:
                    pack.add(chunk.id, chunk.content, chunk.rows, first_hash)
            path = pack.publish()
        if path is None:
            return 0
        self._register(read_index(path))
        return path.stat().st_size

    def read(self, chunk_ids: Iterable[str]) -> Iterator[bytes]:
        """The content of chunks, in this order.

        Raises:
            CorruptFileError: a chunk is missing or cannot be decompressed.
        """
        files: dict[Path, IO[bytes]] = {}
        try:
            for chunk_id in chunk_ids:
                place = self._place(chunk_id)
                if place.pack not in files:
                    with named_read_errors(place.pack):
                        files[place.pack] = place.pack.open("rb")
                files[place.pack].seek(place.offset)
                yield _decompress(files[place.pack].read(place.packed), place)
        finally:
            for file in files.values():
                file.close()

    def collect_garbage(self, live: Set[str]) -> int:
        """Delete the chunks that are not ``live``; packs that hold both are written again first.

        Returns:
            Bytes freed.
        """
        before = self.size()
        for pack in sorted(self._folder.glob("*.pack")):
            index = read_index(pack)
            kept = [chunk_id for chunk_id in index if chunk_id in live]
            if len(kept) == len(index):
                continue
            self._rewrite(pack, kept)
            pack.unlink()
        for leftover in self._folder.glob(".*.part"):
            leftover.unlink(missing_ok=True)
        sync_folder(self._folder)
        return before - self.size()

    def size(self) -> int:
        """Bytes of all packs."""
        return sum(pack.stat().st_size for pack in self._folder.glob("*.pack"))

    def _rewrite(self, pack: Path, kept: list[str]) -> None:
        with named_storage_errors(self._folder), PackWriter(self._folder) as new:
            for chunk_id, content in zip(kept, self.read(kept), strict=True):
                place = self._places[chunk_id]
                if place.pack == pack:
                    new.add(chunk_id, content, place.rows, place.first_hash)
            path = new.publish()
        if path is not None:
            self._register(read_index(path))

    def _register(self, places: dict[str, Place]) -> None:
        for chunk_id, place in places.items():
            if chunk_id not in self._places:
                self._by_first_hash.setdefault(place.first_hash, []).append((chunk_id, place.rows))
            self._places[chunk_id] = place

    def _place(self, chunk_id: str) -> Place:
        if chunk_id not in self._places:
            raise CorruptFileError(
                f"Chunk {chunk_id} is missing from {self._folder}.", fix="Restore the data folder from a backup."
            )
        return self._places[chunk_id]


class PackWriter:
    """Writes one pack; it appears under its name with ``publish``, or not at all."""

    def __init__(self, folder: Path) -> None:
        import pyarrow as pa

        self._folder = folder
        self._staged = folder / f".{os.getpid()}-{os.urandom(4).hex()}.part"
        self._index: list[tuple[str, int, int, int, int, int]] = []
        self._known: set[str] = set()
        self._codec: pa.Codec = pa.Codec("zstd", compression_level=3)

    def __enter__(self) -> PackWriter:
        self._file = self._staged.open("wb")
        self._file.write(MAGIC)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._staged.unlink(missing_ok=True)

    def __contains__(self, chunk_id: str) -> bool:
        return chunk_id in self._known

    def add(self, chunk_id: str, content: bytes, rows: int, first_hash: int) -> None:
        packed = self._codec.compress(content, asbytes=True)
        self._index.append((chunk_id, self._file.tell(), len(packed), len(content), rows, first_hash))
        self._known.add(chunk_id)
        self._file.write(packed)

    def publish(self) -> Path | None:
        """Flush and rename; ``None`` when there is nothing in it."""
        if not self._index:
            return None
        index = json.dumps(self._index, separators=(",", ":")).encode("ascii")
        self._file.write(index)
        self._file.write(len(index).to_bytes(8, "little"))
        self._file.write(MAGIC)
        self._file.flush()
        os.fsync(self._file.fileno())
        path = self._folder / f"{self._index[0][0]}-{os.urandom(4).hex()}.pack"
        self._staged.replace(path)
        sync_folder(self._folder)
        return path


def read_index(pack: Path) -> dict[str, Place]:
    """Chunk id -> place, from the end of a pack.

    Raises:
        CorruptFileError: it is no pack, or cut off.
        StorageError: it may not be read.
    """
    with named_read_errors(pack), pack.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - FOOTER))
        footer = file.read()
        length = int.from_bytes(footer[:8], "little")
        if len(footer) != FOOTER or footer[8:] != MAGIC or length > size:
            raise _damaged(pack)
        file.seek(max(0, size - FOOTER - length))
        index = file.read(length)
    try:
        return {entry[0]: Place(pack, *entry[1:]) for entry in json.loads(index)}
    except (LookupError, TypeError, ValueError):
        raise _damaged(pack) from None


def _damaged(pack: Path) -> CorruptFileError:
    return CorruptFileError(f"{pack} is damaged.", fix="Restore the data folder from a backup.")


def _decompress(packed: bytes, place: Place) -> bytes:
    import pyarrow as pa

    try:
        return pa.Codec("zstd").decompress(packed, decompressed_size=place.size, asbytes=True)  # type: ignore[no-any-return]
    except (OSError, pa.ArrowException) as error:
        raise CorruptFileError(f"{place.pack} is damaged: {error}.", fix="Restore it from a backup.") from None
