"""Large imports: the collector pauses, comes back, and leaves the modules alone."""

from __future__ import annotations

import gc

import pytest

from loramill.imports import large_import


def test_the_collector_pauses_and_comes_back() -> None:
    assert gc.isenabled()
    with large_import():
        assert not gc.isenabled()
        kept = [[] for _ in range(100)]  # type: list[list[object]]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= len(kept)
    gc.unfreeze()


def test_it_comes_back_when_the_import_fails() -> None:
    with pytest.raises(ModuleNotFoundError), large_import():
        import loramill.there_is_no_such_module  # type: ignore[import-not-found]  # noqa: F401
    assert gc.isenabled()
    gc.unfreeze()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with large_import():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()
