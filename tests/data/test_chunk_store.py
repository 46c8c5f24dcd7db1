"""Packs are whole or not there, hold each chunk once, and are emptied safely."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from loramill.data.chunk_store import ChunkStore, PackWriter
from loramill.data.chunks import Chunk, chunk_id_of
from loramill.errors import CorruptFileError


def chunk(text: str) -> tuple[Chunk, int]:
    content = text.encode() * 50
    return Chunk(chunk_id_of(content), 1, 0, content), len(text)


def add(store: ChunkStore, *texts: str) -> int:
    return store.add([chunk(text) for text in texts], [])


def test_a_chunk_is_stored_once(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    assert add(store, "a", "b", "a") > 0
    assert add(store, "b") == 0
    assert add(ChunkStore(tmp_path), "a") == 0
    assert len(list(tmp_path.glob("*.pack"))) == 1


def test_chunks_are_read_in_the_order_asked_for(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    add(store, "a", "b")
    add(store, "c")
    wanted = [chunk(text)[0] for text in ("c", "a", "c")]
    assert list(ChunkStore(tmp_path).read([one.id for one in wanted])) == [one.content for one in wanted]


def test_garbage_goes_and_the_rest_is_readable(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    add(store, "a", "b")
    add(store, "c")
    add(store, "d")
    live = {chunk(text)[0].id for text in ("b", "d")}
    before = store.size()
    assert store.collect_garbage(live) == before - store.size() > 0
    for known in (store, ChunkStore(tmp_path)):
        assert [content[:1] for content in known.read(sorted(live))] != []
    with pytest.raises(CorruptFileError, match="missing"):
        list(ChunkStore(tmp_path).read([chunk("a")[0].id]))


def test_a_pack_that_was_not_finished_is_not_seen_and_goes_with_the_garbage(tmp_path: Path) -> None:
    with PackWriter(tmp_path) as pack:
        pack.add(*_fields("a"))
        leftover = next(tmp_path.glob(".*.part"))
        copy = tmp_path / ".copy-of-a-killed-writer.part"
        copy.write_bytes(leftover.read_bytes())
    assert chunk("a")[0].id not in ChunkStore(tmp_path)
    ChunkStore(tmp_path).collect_garbage(set())
    assert list(tmp_path.iterdir()) == []


def test_a_chunk_in_two_packs_survives_garbage_collection(tmp_path: Path) -> None:
    for _ in range(2):  # a kill between writing the new pack and deleting the old one leaves both
        with PackWriter(tmp_path) as pack:
            pack.add(*_fields("a"))
            pack.add(*_fields("b"))
            pack.publish()
    live = chunk("a")[0]
    ChunkStore(tmp_path).collect_garbage({live.id})
    assert list(ChunkStore(tmp_path).read([live.id])) == [live.content]


@pytest.mark.parametrize(
    "damaged",
    [
        lambda content: content[:-4],
        lambda content: content[:12] + b"\xff\xff\xff\xff" + content[16:],
        lambda content: content[:-18] + b"\xff" + content[-17:],
        lambda content: content.replace(b"],[", b",,,"),
        lambda content: content[:-16] + (2).to_bytes(8, "little") + content[-8:],
    ],
    ids=["cut", "chunk", "index", "index no JSON", "index too short"],
)
def test_a_damaged_pack_is_named(tmp_path: Path, damaged: Callable[[bytes], bytes]) -> None:
    add(ChunkStore(tmp_path), "a", "b")
    path = next(tmp_path.glob("*.pack"))
    path.write_bytes(damaged(path.read_bytes()))
    with pytest.raises(CorruptFileError, match="damaged"):
        list(ChunkStore(tmp_path).read([chunk("a")[0].id]))


def _fields(text: str) -> tuple[str, bytes, int, int]:
    one, first_hash = chunk(text)
    return one.id, one.content, one.rows, first_hash
