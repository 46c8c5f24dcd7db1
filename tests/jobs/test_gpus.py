from __future__ import annotations

import contextlib

import pytest

from loramill.jobs.gpus import GpuSlots, find_gpus


def test_jobs_are_spread_over_the_gpus() -> None:
    gpus = GpuSlots(["0", "1"])
    with contextlib.ExitStack() as first, contextlib.ExitStack() as others:
        assert first.enter_context(gpus.taken()) == "0"
        assert others.enter_context(gpus.taken()) == "1"
        first.close()
        assert others.enter_context(gpus.taken()) == "0"
        assert {others.enter_context(gpus.taken()) for _ in range(2)} == {"0", "1"}
    with GpuSlots([]).taken() as none:
        assert none is None


@pytest.mark.parametrize(
    ("visible", "found"),
    [("", []), ("1,3", ["1", "3"]), ("GPU-ab, 2", ["GPU-ab", "2"]), ("-1", []), ("0,-1,1", ["0"])],
)
def test_the_environment_says_which_are_ours(visible: str, found: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert find_gpus() == found
