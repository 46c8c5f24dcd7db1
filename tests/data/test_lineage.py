"""From a row back to the versions that hold it."""

from __future__ import annotations

from pathlib import Path

from data_rows import MakeRows, clean_texts
from loramill.data.lineage import hashes_of, rows_in_versions
from loramill.data.version_manager import DataVersionManager


def test_versions_that_hold_a_row_are_found(make_rows: MakeRows, tmp_path: Path) -> None:
    manager = DataVersionManager(tmp_path)
    texts = clean_texts(900)
    first = manager.create(make_rows([*texts[:500], texts[0]])).version
    second = manager.create(make_rows(texts[400:])).version
    pairs = manager.create(make_rows(texts[:3], pairs=["a", "b", "c"])).version
    versions = [first, second, pairs]
    assert rows_in_versions(manager, versions, hashes_of([texts[0]])) == {first.id: 2, pairs.id: 1}
    assert rows_in_versions(manager, versions, hashes_of([texts[450], texts[800]])) == {first.id: 1, second.id: 2}
    assert rows_in_versions(manager, versions, hashes_of(["never seen"])) == {}
    same_pair = make_rows(texts[1:2], pairs=["b"]).text_hashes
    assert rows_in_versions(manager, versions, same_pair) == {pairs.id: 1}
