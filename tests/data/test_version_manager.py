"""Versions: the same rows are the same version, little is stored twice, and nothing is lost, not even by kill -9."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_rows import Load, MakeRows, clean_texts, write_rows
from loramill.data.version_manager import DataVersionManager
from loramill.errors import ConflictError, CorruptFileError, NotFoundError


@pytest.fixture
def manager(tmp_path: Path) -> DataVersionManager:
    return DataVersionManager(tmp_path / "data")


def test_the_same_rows_in_another_file_are_the_same_version(
    manager: DataVersionManager, load: Load, tmp_path: Path
) -> None:
    texts = clean_texts(500)
    csv = tmp_path / "first.csv"
    csv.write_text("review;stars\n" + "".join(f'"{text}";{number % 3}\n' for number, text in enumerate(texts)))
    jsonl = write_rows(
        tmp_path / "renamed.jsonl", [{"stars": number % 3, "review": text} for number, text in enumerate(texts)]
    )
    first = manager.create(load(csv).splits["train"])
    second = manager.create(load(jsonl).splits["train"])
    assert first.is_new
    assert first.stored_bytes > 0
    assert (second.is_new, second.stored_bytes) == (False, 0)
    assert first.version == second.version


@pytest.mark.parametrize("rows", [1_000, 30_000])
def test_an_append_of_one_percent_stores_little(manager: DataVersionManager, make_rows: MakeRows, rows: int) -> None:
    texts = clean_texts(rows + rows // 100)
    first = manager.create(make_rows(texts[:rows]))
    second = manager.create(make_rows(texts))
    assert second.is_new
    assert second.stored_bytes <= 0.03 * first.stored_bytes
    manager.verify(second.version)


def test_rows_come_back_as_they_were(manager: DataVersionManager, make_rows: MakeRows) -> None:
    texts = ["one", None, "", "好\n\0\ufffd"]
    plain = manager.create(make_rows(texts, ["a", None, "b", "a"])).version
    assert manager.table(plain).to_pylist() == [
        {"text": text, "label": label} for text, label in zip(texts, ["a", None, "b", "a"], strict=True)
    ]
    pairs = manager.create(make_rows(["a", "b"], [["x"], ["y", "x"]], pairs=["c", None])).version
    assert manager.table(pairs).to_pylist() == [
        {"text": "a", "text_pair": "c", "label": ["x"]},
        {"text": "b", "text_pair": None, "label": ["y", "x"]},
    ]


def test_a_version_knows_where_it_comes_from(manager: DataVersionManager, make_rows: MakeRows) -> None:
    parent = manager.create(make_rows(clean_texts(20))).version
    child = manager.create(
        make_rows(clean_texts(30), [0, 0, 1] * 10),
        source="reviews.csv (train)",
        description="without the adverts",
        parents=[parent.id],
        label_names=["bad", "good"],
        cleaning={"html_tags repaired": 3},
    ).version
    assert manager.get(child.id) == child
    assert (child.rows, child.label_counts, child.parents) == (30, {"0": 20, "1": 10}, (parent.id,))
    assert (child.source, child.description, child.label_names) == (
        "reviews.csv (train)",
        "without the adverts",
        ("bad", "good"),
    )
    assert [version.id for version in manager.versions()] == sorted(
        [parent.id, child.id], key=lambda version_id: (manager.get(version_id).created_at, version_id)
    )


def test_a_version_is_found_by_id_beginning_and_tag(manager: DataVersionManager, make_rows: MakeRows) -> None:
    version = manager.create(make_rows(clean_texts(20))).version
    manager.tag(version.id, "golden")
    for name in (version.id, version.id[:4], version.id[:12], "golden"):
        assert manager.get(name) == version
    for name in (version.id[:3], "silver", "../../etc/passwd", "*", ""):
        with pytest.raises(NotFoundError):
            manager.get(name)


def test_tags_move_and_go(manager: DataVersionManager, make_rows: MakeRows) -> None:
    first, second = (manager.create(make_rows(clean_texts(20, seed=seed))).version for seed in (1, 2))
    manager.tag(first.id, "golden")
    manager.tag(second.id, "golden")
    assert manager.get("golden") == second
    manager.untag("golden")
    assert manager.tags() == {}
    for tag in ("has space", "../up", "abcdef", "", "7up"):
        with pytest.raises(ConflictError):
            manager.tag(first.id, tag)


def test_a_version_in_use_is_not_deleted(manager: DataVersionManager, make_rows: MakeRows) -> None:
    used, free = (manager.create(make_rows(clean_texts(400, seed=seed))).version for seed in (1, 2))
    manager.tag(free.id, "old")

    def uses(version_id: str) -> list[str]:
        return ["experiment_20260101_000000"] if version_id == used.id else []

    with pytest.raises(ConflictError, match="experiment_20260101_000000"):
        manager.delete(used.id, uses)
    manager.delete("old", uses)
    assert [version.id for version in manager.versions()] == [used.id]
    assert manager.tags() == {}
    assert manager.collect_garbage() > 0
    assert manager.collect_garbage() == 0
    manager.verify(used)


def test_deleting_keeps_the_rows_that_another_version_shares(manager: DataVersionManager, make_rows: MakeRows) -> None:
    texts = clean_texts(3000)
    first = manager.create(make_rows(texts[:2500])).version
    second = manager.create(make_rows(texts)).version
    manager.delete(first.id, lambda _: [])
    manager.collect_garbage()
    manager.verify(second)
    assert manager.table(second)["text"].to_pylist() == texts


def test_damage_is_noticed(manager: DataVersionManager, make_rows: MakeRows, tmp_path: Path) -> None:
    version = manager.create(make_rows(clean_texts(400))).version
    pack = next((tmp_path / "data" / "datasets").glob("*.pack"))
    content = bytearray(pack.read_bytes())
    content[200] ^= 0xFF
    pack.write_bytes(bytes(content))
    with pytest.raises(CorruptFileError):
        manager.verify(version)


def test_versions_that_are_made_at_once_do_not_get_in_each_others_way(tmp_path: Path) -> None:
    writers = [_writer(tmp_path, first, 12) for first in (0, 100, 200)]
    for writer in writers:
        assert writer.wait(timeout=120) == 0
    manager = DataVersionManager(tmp_path / "data")
    assert len(manager.versions()) == 36
    for version in manager.versions():
        manager.verify(version)


def test_kill_9_at_any_moment_leaves_every_earlier_version_whole(tmp_path: Path) -> None:
    chance = random.Random(7)
    manager = DataVersionManager(tmp_path / "data")
    finished: set[str] = set()
    for attempt in range(12):
        writer = _writer(tmp_path, attempt * 1000, 1000)
        deadline = time.monotonic() + 20
        while len(list((tmp_path / "data" / "datasets").glob("*.pack"))) <= len(finished):
            assert time.monotonic() < deadline, "the writer stored nothing"
            time.sleep(0.01)
        time.sleep(chance.random() * 0.2)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        versions = manager.versions()
        assert finished <= {version.id for version in versions}
        for version in versions:
            manager.verify(version)
        finished = {version.id for version in versions}
        if attempt % 4 == 3:
            manager.collect_garbage()
            for version in versions:
                manager.verify(version)


WRITER = """
import sys
from pathlib import Path
import numpy as np, pyarrow as pa
from loramill.data.columns import Columns
from loramill.data.rows import SplitRows
from loramill.data.version_manager import DataVersionManager
manager = DataVersionManager(Path(sys.argv[1]) / "data")
for number in range(int(sys.argv[2]), int(sys.argv[2]) + int(sys.argv[3])):
    texts = pa.array([f"row {row} of version {number}" for row in range(300)], pa.large_string())
    labels = pa.array(["a", "b"] * 150, pa.string())
    rows = SplitRows("train", texts, None, labels, np.arange(300), Columns("text", None, "label"))
    manager.create(rows, source=str(number))
"""


def _writer(folder: Path, first: int, count: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(folder), str(first), str(count)])


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 5},
        {"label_counts": {"0": 1}},
        {"several_labels": True},
        {"columns": ["text", "text_pair", "label"]},
        {"chunks": None},
        {"unheard_of": 1},
        {"parents": None, "columns": None},
    ],
    ids=str,
)
def test_a_description_that_was_edited_is_found(
    manager: DataVersionManager, tmp_path: Path, make_rows: MakeRows, change: dict[str, object]
) -> None:
    version = manager.create(make_rows(clean_texts(10), ["0", "1"] * 5)).version
    path = tmp_path / "data" / "metadata" / "versions" / f"{version.id}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CorruptFileError, match=version.id):
        manager.verify(manager.get(version.id))


@pytest.mark.parametrize("content", ["[]", '{"a": 1}', "3"])
def test_documents_of_the_store_that_are_something_else_are_named(
    manager: DataVersionManager, tmp_path: Path, make_rows: MakeRows, content: str
) -> None:
    version = manager.create(make_rows(clean_texts(10), ["0", "1"] * 5)).version
    path = tmp_path / "data" / "metadata" / "versions" / f"{version.id}.json"
    path.write_text(content)
    with pytest.raises(CorruptFileError, match=version.id):
        manager.versions()
