from __future__ import annotations

from pathlib import Path

import pytest

from loramill.errors import CorruptFileError
from loramill.inference.serving_set import DEFAULT_ROUTE, Route, ServingSet


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    serving = (
        ServingSet()
        .with_model("a", "1")
        .with_model("b", "2")
        .with_newest("a")
        .with_route("production", Route("a", "b", 0.25))
    )
    serving.write(tmp_path / "serving.json")
    assert ServingSet.read(tmp_path / "serving.json") == serving
    switched = serving.with_route(DEFAULT_ROUTE, Route("b"))
    switched.write(tmp_path / "serving.json")
    assert (serving.default_was_switched, ServingSet.read(tmp_path / "serving.json").default_was_switched) == (
        False,
        True,
    )
    assert switched.with_newest("c") == switched


def test_changes_leave_the_old_set_as_it_was() -> None:
    before = ServingSet().with_model("a", "1").with_route("x", Route("a"))
    after = before.without_model("a").without_route("x").with_model("b", "1")
    assert (dict(before.models), list(before.routes)) == ({"a": "1"}, ["x"])
    assert (dict(after.models), list(after.routes)) == ({"b": "1"}, [])


def test_a_canary_is_named_too() -> None:
    serving = ServingSet().with_route("x", Route("a", "b", 0.5)).with_route("y", Route("b"))
    assert (serving.names_of("a"), serving.names_of("b"), serving.names_of("c")) == (["x"], ["x", "y"], [])


def test_without_a_file_nothing_is_served(tmp_path: Path) -> None:
    assert ServingSet.read(tmp_path / "serving.json") == ServingSet()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"models": {}, "routes": {"a": 1}}', "\xff", "[" * 100_000])
def test_anything_else_in_the_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "serving.json").write_text(content, encoding="latin-1")
    with pytest.raises(CorruptFileError, match="what was served"):
        ServingSet.read(tmp_path / "serving.json")
