"""Data versions: immutable rows named by their content, so that a run can say exactly what it saw.

    data/datasets/*.pack            the rows, in chunks that versions share
    data/metadata/versions/*.json   one manifest a version: its chunks, parents, description, statistics
    data/metadata/tags.json         tag -> version

A version comes into being with its manifest, which is written last and at once: a kill at any moment leaves every
earlier version whole, and at most a pack that garbage collection removes.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loramill.data.chunk_store import ChunkStore
from loramill.data.chunks import chunks_of, decode_chunk, rows_id
from loramill.data.rows import SplitRows, combine_hashes, hash_repeated_strings, hash_strings
from loramill.data.versions import (
    DataVersion,
    Stored,
    character_statistics,
    describes,
    label_counts,
    one_array,
    stored_columns,
    with_label_lists,
)
from loramill.errors import ConflictError, CorruptFileError, NotFoundError
from loramill.files import named_read_errors, named_storage_errors, sync_folder, write_json

if TYPE_CHECKING:
    import pyarrow as pa

SHORTEST_PREFIX = 4
TAG = re.compile(r"[A-Za-z][\w.\-]{0,63}")


class DataVersionManager:
    """Creates, finds, reads, compares, tags and deletes versions in a data folder."""

    def __init__(self, data_folder: Path) -> None:
        self._packs = data_folder / "datasets"
        self._manifests = data_folder / "metadata" / "versions"
        self._tags = data_folder / "metadata" / "tags.json"

    def create(
        self,
        rows: SplitRows,
        *,
        source: str = "",
        description: str = "",
        parents: Sequence[str] = (),
        label_names: Sequence[str] | None = None,
        cleaning: Mapping[str, int] | None = None,
    ) -> Stored:
        """Store rows as a version; the same rows a second time give the version that is there.

        Raises:
            DiskFullError, UnwritableError: every earlier version is untouched.
        """
        columns = stored_columns(rows)
        version_id = rows_id(list(columns.values()))
        with self._locked():
            if self._manifest(version_id).is_file():
                return Stored(self._load(version_id), is_new=False, stored_bytes=0)
            stored_bytes, chunks = self._store_chunks(list(columns.values()))
            version = DataVersion(
                id=version_id,
                created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds"),
                rows=len(rows),
                columns=tuple(columns),
                several_labels=rows.has_several_labels,
                label_counts=label_counts(rows.labels),
                characters=character_statistics(rows),
                chunks=tuple(chunks),
                label_names=tuple(label_names) if label_names else None,
                description=description,
                source=source,
                parents=tuple(parent for parent in parents if parent != version_id),
                cleaning=dict(cleaning or {}),
            )
            write_json(self._manifest(version_id), asdict(version))
        return Stored(version, is_new=True, stored_bytes=stored_bytes)

    def versions(self) -> list[DataVersion]:
        """Every version, oldest first."""
        versions = [self._load(version_id) for version_id in self._ids()]
        return sorted(versions, key=lambda version: (version.created_at, version.id))

    def get(self, name: str) -> DataVersion:
        """The version with this tag, id, or beginning of an id (4 digits or more).

        Raises:
            NotFoundError: there is none.
            ConflictError: several ids begin so.
        """
        tagged = self.tags().get(name)
        if tagged is not None:
            return self._load(tagged)
        matches = [known for known in self._ids() if known.startswith(name)] if len(name) >= SHORTEST_PREFIX else []
        if len(matches) > 1:
            raise ConflictError(
                f"{len(matches)} data versions begin with '{name}'.", fix=f"Write more of the id: {', '.join(matches)}."
            )
        if not matches:
            raise NotFoundError(
                f"There is no data version '{name}'.", fix="`loramill data list` shows versions and tags."
            )
        return self._load(matches[0])

    def table(self, version: DataVersion) -> pa.Table:
        """The rows of a version: columns ``text``, perhaps ``text_pair``, and ``label``; each chunk is verified.

        Raises:
            CorruptFileError: the store lost or changed rows.
        """
        table = self.chunk_table(version, [chunk_id for chunk_id, _ in version.chunks])
        return with_label_lists(table) if version.several_labels else table

    def chunk_table(self, version: DataVersion, chunk_ids: Sequence[str]) -> pa.Table:
        """The rows of some chunks of a version, as they are stored: one text a column.

        Raises:
            CorruptFileError: the store lost or changed rows.
        """
        import pyarrow as pa

        try:
            contents = list(ChunkStore(self._packs).read(chunk_ids))
        except FileNotFoundError:  # garbage collection moved the chunks to another pack just now
            contents = list(ChunkStore(self._packs).read(chunk_ids))
        parts = [decode_chunk(content, chunk_id) for content, chunk_id in zip(contents, chunk_ids, strict=True)]
        if any(len(part) != len(version.columns) for part in parts):
            raise _damaged(version.id)
        columns = [
            pa.chunked_array([part[number] for part in parts], pa.large_string())
            for number in range(len(version.columns))
        ]
        return pa.Table.from_arrays(columns, names=list(version.columns))

    def verify(self, version: DataVersion) -> None:
        """Read every row and compare with the id and the description.

        Raises:
            CorruptFileError: the rows are not the ones that were stored.
        """
        table = self.chunk_table(version, [chunk_id for chunk_id, _ in version.chunks])
        if rows_id([one_array(column) for column in table.columns]) != version.id or not describes(version, table):
            raise _damaged(version.id)

    def tags(self) -> dict[str, str]:
        """Tag -> version id."""
        return dict(_read_json(self._tags) or {})

    def tag(self, name: str, tag: str) -> DataVersion:
        """Give a version a name; a tag that is taken moves.

        Raises:
            ConflictError: the tag is not a name, or looks like an id.
        """
        if not TAG.fullmatch(tag) or re.fullmatch(r"[0-9a-f]{4,}", tag):
            raise ConflictError(
                f"'{tag}' cannot be a tag.", fix="Begin with a letter, use letters, digits, '_', '-', '.'; no plain id."
            )
        with self._locked():
            version = self.get(name)
            self._write_tags({**self.tags(), tag: version.id})
        return version

    def untag(self, tag: str) -> None:
        """Take a tag away.

        Raises:
            NotFoundError: there is no such tag.
        """
        with self._locked():
            tags = self.tags()
            if tags.pop(tag, None) is None:
                raise NotFoundError(f"There is no tag '{tag}'.", fix="`loramill data list` shows the tags.")
            self._write_tags(tags)

    def delete(self, name: str, uses: Callable[[str], Sequence[str]]) -> DataVersion:
        """Forget a version that nothing uses; ``collect_garbage`` frees its space.

        Args:
            uses: version id -> experiments and data sets that use it.

        Raises:
            ConflictError: something uses it.
        """
        with self._locked():
            version = self.get(name)
            users = uses(version.id)
            if users:
                shown = ", ".join(users[:5]) + (", ..." if len(users) > 5 else "")
                raise ConflictError(
                    f"Data version {version.id[:12]} is used by {len(users)} experiment(s) or data set(s): {shown}.",
                    fix="Delete those first, or keep the version.",
                )
            self._write_tags({tag: used for tag, used in self.tags().items() if used != version.id})
            with named_storage_errors(self._manifests):
                self._manifest(version.id).unlink()
                sync_folder(self._manifests)
        return version

    def collect_garbage(self) -> int:
        """Delete rows that no version needs; returns the bytes freed."""
        with self._locked():
            live = {chunk_id for version in self.versions() for chunk_id, _ in version.chunks}
            with named_storage_errors(self._packs):
                return ChunkStore(self._packs).collect_garbage(live)

    def stored_bytes(self) -> int:
        """Bytes that all rows take on disk."""
        return ChunkStore(self._packs).size()

    def _store_chunks(self, columns: Sequence[pa.LargeStringArray]) -> tuple[int, list[tuple[str, int]]]:
        hashes = hash_strings(columns[0])
        for column in columns[1:-1]:
            hashes = combine_hashes(hashes, hash_strings(column))
        hashes = combine_hashes(hashes, hash_repeated_strings(columns[-1]))
        store = ChunkStore(self._packs)
        chunks: list[tuple[str, int]] = []
        cut = ((chunk, int(hashes[chunk.first_row])) for chunk in chunks_of(columns, hashes, store.starting_with))
        return store.add(cut, chunks), chunks

    def _manifest(self, version_id: str) -> Path:
        return self._manifests / f"{version_id}.json"

    def _ids(self) -> list[str]:
        """Ids of all versions; a folder that may not be read is an error, not an empty one.

        Raises:
            StorageError: it may not be read.
        """
        try:
            with named_read_errors(self._manifests):
                return [path.stem for path in self._manifests.iterdir() if path.suffix == ".json"]
        except FileNotFoundError:
            return []

    def _load(self, version_id: str) -> DataVersion:
        values = _read_json(self._manifest(version_id))
        if values is None:
            raise NotFoundError(f"There is no data version {version_id}.", fix="It was deleted meanwhile.")
        try:
            names = values["label_names"]
            described = {
                "columns": tuple(values["columns"]),
                "parents": tuple(values["parents"]),
                "label_names": None if names is None else tuple(names),
                "chunks": tuple((chunk_id, rows) for chunk_id, rows in values["chunks"]),
            }
            return DataVersion(**{**values, **described})
        except (LookupError, TypeError, ValueError):
            raise _damaged(version_id) from None

    def _write_tags(self, tags: Mapping[str, str]) -> None:
        write_json(self._tags, dict(sorted(tags.items())))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time; readers need no lock, since files appear whole and never change."""
        from filelock import FileLock

        with contextlib.ExitStack() as held:
            with named_storage_errors(self._manifests):
                self._manifests.mkdir(parents=True, exist_ok=True)
                held.enter_context(FileLock(self._manifests.parent / ".lock"))
            yield


def _damaged(version_id: str) -> CorruptFileError:
    return CorruptFileError(f"Data version {version_id} is damaged.", fix="Restore the data from a backup.")


def _read_json(path: Path) -> dict[str, Any] | None:
    """A document of the store; ``None`` when there is none.

    Raises:
        CorruptFileError: it is no JSON.
        StorageError: it may not be read.
    """
    try:
        with named_read_errors(path):
            document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise CorruptFileError(f"{path} is damaged.", fix="Restore it from a backup.") from None
    return document
