"""What changed between two versions: rows added, rows removed, rows with another label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loramill.data.rows import Hashes, combine_hashes, hash_repeated_strings, hash_strings
from loramill.data.version_manager import DataVersionManager
from loramill.data.versions import DataVersion, one_array

if TYPE_CHECKING:
    import pyarrow as pa

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class VersionDiff:
    """Rows by what happened to them; each example is a row as stored.

    Attributes:
        relabelled: rows whose text stayed and whose label changed; not counted as added or removed.
        relabelled_examples: text, old label, new label.
    """

    before: str
    after: str
    unchanged: int
    added: int
    removed: int
    relabelled: int
    added_examples: Sequence[dict[str, object]]
    removed_examples: Sequence[dict[str, object]]
    relabelled_examples: Sequence[dict[str, object]]

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def diff_versions(
    manager: DataVersionManager, before: DataVersion, after: DataVersion, *, examples: int = 20
) -> VersionDiff:
    """Compare two versions as bags of rows: order does not count, repetition does.

    Only chunks that the versions do not share are read.

    Raises:
        CorruptFileError: the store lost rows of one of them.
    """
    old_chunks, new_chunks = _not_shared(before, after)
    old, new = manager.chunk_table(before, old_chunks), manager.chunk_table(after, new_chunks)
    old_rows, new_rows = _Rows.of(old), _Rows.of(new)
    removed = np.flatnonzero(~_also_in(old_rows.whole, new_rows.whole))
    added = np.flatnonzero(~_also_in(new_rows.whole, old_rows.whole))
    from_rows, to_rows = _matched(old_rows.texts[removed], new_rows.texts[added])
    changed_from, changed_to = removed[from_rows], added[to_rows]
    removed, added = np.setdiff1d(removed, changed_from), np.setdiff1d(added, changed_to)
    return VersionDiff(
        before=before.id,
        after=after.id,
        unchanged=before.rows - len(removed) - len(changed_from),
        added=len(added),
        removed=len(removed),
        relabelled=len(changed_from),
        added_examples=_examples(new, added[:examples]),
        removed_examples=_examples(old, removed[:examples]),
        relabelled_examples=_relabelled(old, new, changed_from[:examples], changed_to[:examples]),
    )


@dataclass(frozen=True)
class _Rows:
    """Hashes of texts (with pairs), and of texts with labels ``[rows]``."""

    texts: Hashes
    whole: Hashes

    @classmethod
    def of(cls, table: pa.Table) -> _Rows:
        columns = [one_array(column) for column in table.columns]
        hashed = [hash_strings(column) for column in columns[:-1]]
        texts = hashed[0] if len(hashed) == 1 else combine_hashes(*hashed)
        return cls(texts, combine_hashes(texts, hash_repeated_strings(columns[-1])))


def _not_shared(before: DataVersion, after: DataVersion) -> tuple[list[str], list[str]]:
    """Chunks of one version that the other lacks, counted as often as they are in excess."""
    old = Counter(chunk_id for chunk_id, _ in before.chunks)
    new = Counter(chunk_id for chunk_id, _ in after.chunks)
    return list((old - new).elements()), list((new - old).elements())


def _also_in(own: Hashes, other: Hashes) -> NDArray[np.bool_]:
    """Whether each row has its counterpart in the other bag: the third copy needs three there."""
    counterparts = np.sort(combine_hashes(other, _occurrence(other)))
    if not len(counterparts):
        return np.zeros(len(own), dtype=bool)
    wanted = combine_hashes(own, _occurrence(own))
    place = np.minimum(np.searchsorted(counterparts, wanted), len(counterparts) - 1)
    found: NDArray[np.bool_] = counterparts[place] == wanted
    return found


def _matched(own: Hashes, other: Hashes) -> tuple[Indices, Indices]:
    """Positions of equal hashes in both, each used once."""
    _, first, second = np.intersect1d(
        combine_hashes(own, _occurrence(own)),
        combine_hashes(other, _occurrence(other)),
        assume_unique=True,
        return_indices=True,
    )
    return first.astype(np.int64), second.astype(np.int64)


def _occurrence(values: Hashes) -> Hashes:
    """How many equal values stand before each ``[rows]``."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    begins = np.concatenate(([True], ordered[1:] != ordered[:-1])) if len(values) else np.zeros(0, dtype=bool)
    starts = np.maximum.accumulate(np.where(begins, np.arange(len(values)), 0))
    occurrence = np.empty(len(values), dtype=np.uint64)
    occurrence[order] = np.arange(len(values)) - starts
    return occurrence


def _examples(table: pa.Table, rows: Indices) -> list[dict[str, object]]:
    return list(table.take(rows).to_pylist())


def _relabelled(old: pa.Table, new: pa.Table, old_rows: Indices, new_rows: Indices) -> list[dict[str, object]]:
    after = new["label"].take(new_rows).to_pylist()
    return [
        {**{key: value for key, value in row.items() if key != "label"}, "before": row["label"], "after": label}
        for row, label in zip(_examples(old, old_rows), after, strict=True)
    ]
