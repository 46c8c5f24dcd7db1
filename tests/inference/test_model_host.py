from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from loramill.engine.peft_format import WEIGHTS_FILE
from loramill.errors import (
    AdapterFormatError,
    ConflictError,
    CorruptFileError,
    ModelNotFoundError,
    NotFoundError,
    UnwritableError,
)
from loramill.inference.model_host import ModelHost
from loramill.inference.model_memory import ModelMemory
from loramill.inference.serving_set import DEFAULT_ROUTE, Route, ServingSet
from served_models import Experiments


def run(host: ModelHost, use: Callable[[ModelHost], Awaitable[None]]) -> None:
    async def main() -> None:
        try:
            await use(host)
        finally:
            host.close()

    asyncio.run(main())


def spoil(final_model: Path) -> None:
    """Make the weights NaN."""
    tensors = load_file(final_model / WEIGHTS_FILE)
    save_file(
        {name: torch.full_like(tensor, float("nan")) for name, tensor in tensors.items()}, final_model / WEIGHTS_FILE
    )


@pytest.fixture
def three(experiments: Experiments) -> Experiments:
    for answer, name in enumerate(("a", "b", "c")):
        experiments.save_constant(name, answer)
    return experiments


def test_a_model_is_loaded_when_it_is_asked_for_and_stays(three: Experiments) -> None:
    async def use(host: ModelHost) -> None:
        assert host.find("a") is None
        first = await host.get("a")
        assert first.saved.experiment_id == "a"
        assert host.find("a") is first is await host.get("a")

    run(ModelHost(three.options()), use)


def test_all_models_share_one_base(three: Experiments) -> None:
    async def use(host: ModelHost) -> None:
        models = await asyncio.gather(*(host.get(name) for name in "abc"))
        assert len({model.base for model in models}) == 1

    run(ModelHost(three.options()), use)


def test_callers_that_want_the_same_model_wait_for_one_load(
    three: Experiments, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    read = ModelMemory.read
    monkeypatch.setattr(ModelMemory, "read", lambda own, name, version: reads.append(name) or read(own, name, version))

    async def use(host: ModelHost) -> None:
        models = await asyncio.gather(*(host.get("a") for _ in range(10)))
        assert len(set(models)) == 1
        assert reads == ["a"]

    run(ModelHost(three.options()), use)


def test_names_lead_to_models_until_they_lead_elsewhere(three: Experiments) -> None:
    async def use(host: ModelHost) -> None:
        await host.set_route(DEFAULT_ROUTE, Route("a"))
        await host.set_route("production", Route("b"))
        before = await host.get()
        assert [before.saved.experiment_id, (await host.get("production")).saved.experiment_id] == ["a", "b"]
        await host.set_route(DEFAULT_ROUTE, Route("c"))
        assert (await host.get()).saved.experiment_id == "c"
        assert before.saved.experiment_id == "a", "who has a model keeps it"
        await host.remove_route("production")
        with pytest.raises(ModelNotFoundError):
            await host.get("production")
        with pytest.raises(NotFoundError):
            await host.remove_route("production")

    run(ModelHost(three.options()), use)


def test_a_canary_gets_its_share(three: Experiments) -> None:
    async def use(host: ModelHost) -> None:
        await host.set_route("x", Route("a", "b", 0.25))
        found = [(await host.get("x")).saved.experiment_id for _ in range(2000)]
        assert set(found) == {"a", "b"}
        assert found.count("b") / 2000 == pytest.approx(0.25, abs=0.05)

    run(ModelHost(three.options()), use)


def test_the_default_is_the_newest_until_somebody_chooses(three: Experiments) -> None:
    async def first(host: ModelHost) -> None:
        await host.serve_newest()
        assert (await host.get()).saved.experiment_id == "c"
        assert not host.serving.default_was_switched

    async def second(host: ModelHost) -> None:
        await host.restore()
        assert not host.serving.default_was_switched
        await host.set_route(DEFAULT_ROUTE, Route("a"))
        assert host.serving.default_was_switched

    run(ModelHost(three.options()), first)
    run(ModelHost(three.options()), second)


def test_a_service_without_any_model_takes_the_first_that_finishes(experiments: Experiments) -> None:
    async def use(host: ModelHost) -> None:
        await host.serve_newest()
        with pytest.raises(ModelNotFoundError, match="No experiment has finished"):
            await host.get()
        experiments.save_constant("first", 1)
        assert (await host.get()).saved.experiment_id == "first"

    run(ModelHost(experiments.options()), use)


def test_a_bad_model_never_replaces_a_good_one(three: Experiments) -> None:
    async def use(host: ModelHost) -> None:
        await host.set_route(DEFAULT_ROUTE, Route("a"))
        good = await host.get()
        spoil(three.results / "a" / "artifacts" / "final_model")
        spoil(three.results / "b" / "artifacts" / "final_model")
        with pytest.raises(AdapterFormatError, match="not finite"):
            await host.load("a")
        with pytest.raises(AdapterFormatError, match="not finite"):
            await host.set_route(DEFAULT_ROUTE, Route("b"))
        assert host.find() is good
        assert list(host.serving.models) == ["a"]

    run(ModelHost(three.options()), use)


def test_loading_again_serves_the_new_version(three: Experiments) -> None:
    async def use(host: ModelHost) -> None:
        old = await host.get("a")
        three.save_constant("a", 9)
        assert await host.get("a") is old
        new = await host.load("a")
        assert host.find("a") is new
        assert new.saved.version != old.saved.version
        assert ServingSet.read(three.options().state_file).models == {"a": new.saved.version}

    run(ModelHost(three.options()), use)


def test_unloading(three: Experiments) -> None:
    dropped: list[object] = []

    async def use(host: ModelHost) -> None:
        await host.set_route(DEFAULT_ROUTE, Route("a"))
        base = (await host.get("b")).base
        with pytest.raises(ConflictError, match="default"):
            await host.unload("a")
        with pytest.raises(ModelNotFoundError):
            await host.unload("never loaded")
        await host.unload("b")
        assert host.find("b") is None
        assert list(host.serving.models) == ["a"]
        assert dropped == [], "a still needs the base"
        await host.set_route("x", Route("b"))
        await host.set_route(DEFAULT_ROUTE, Route("b"))
        await host.unload("a")
        await host.remove_route("x")
        await host.remove_route(DEFAULT_ROUTE)
        await host.unload("b")
        assert dropped == [base]

    run(ModelHost(three.options(), on_drop=dropped.append), use)


def test_the_least_recently_used_adapter_makes_room(three: Experiments) -> None:
    one = 0

    async def measure(host: ModelHost) -> None:
        nonlocal one
        one = (await host.get("a")).adapter.nbytes

    async def use(host: ModelHost) -> None:
        await host.set_route(DEFAULT_ROUTE, Route("a"))
        await host.get("b")
        await host.get("c")
        assert [host.find(name) is not None for name in "abc"] == [True, False, True], "a has a name"
        assert set(host.serving.models) == {"a", "b", "c"}
        assert (await host.get("b")).saved.experiment_id == "b", "it comes back when it is asked for"
        assert host.find("c") is None

    run(ModelHost(three.options()), measure)
    (three.results / "serving.json").unlink()
    run(ModelHost(three.options(adapter_bytes=2 * one)), use)


def test_a_restart_serves_the_same_set(three: Experiments) -> None:
    async def before(host: ModelHost) -> None:
        await host.set_route(DEFAULT_ROUTE, Route("b"))
        await host.set_route("x", Route("a", "c", 0.5))

    async def after(host: ModelHost) -> None:
        await host.restore()
        assert {name: host.find(name) is not None for name in "abc"} == {"a": True, "b": True, "c": True}
        assert host.serving.routes == {DEFAULT_ROUTE: Route("b"), "x": Route("a", "c", 0.5)}
        assert not host.failures

    run(ModelHost(three.options()), before)
    run(ModelHost(three.options()), after)


def test_models_without_a_name_are_restored_too(three: Experiments) -> None:
    async def before(host: ModelHost) -> None:
        await host.get("a")

    async def after(host: ModelHost) -> None:
        await host.restore()
        assert host.find("a") is None
        await host.restore_others()
        assert host.find("a") is not None

    run(ModelHost(three.options()), before)
    run(ModelHost(three.options()), after)


def test_files_that_changed_while_the_service_was_down_are_not_served_unasked(three: Experiments) -> None:
    async def before(host: ModelHost) -> None:
        await host.set_route(DEFAULT_ROUTE, Route("a"))
        await host.set_route("x", Route("b"))
        await host.set_route("gone", Route("c"))

    async def after(host: ModelHost) -> None:
        await host.restore()
        assert sorted(host.failures) == ["a", "c"]
        assert host.find("x") is not None
        with pytest.raises(AdapterFormatError, match="load it again"):
            await host.get()
        await host.load("a")
        assert (await host.get()).saved.experiment_id == "a"
        assert sorted(host.failures) == ["c"]

    run(ModelHost(three.options()), before)
    three.save_constant("a", 9)
    shutil.rmtree(three.results / "c")
    run(ModelHost(three.options()), after)


def test_a_change_that_cannot_be_saved_is_not_made(three: Experiments, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(host: ModelHost) -> None:
        await host.set_route(DEFAULT_ROUTE, Route("a"))
        await host.get("b")

        def refuse(_serving: ServingSet, path: Path) -> None:
            raise UnwritableError(f"{path} cannot be written.")

        monkeypatch.setattr(ServingSet, "write", refuse)
        with pytest.raises(UnwritableError):
            await host.set_route(DEFAULT_ROUTE, Route("b"))
        assert (await host.get()).saved.experiment_id == "a"

    run(ModelHost(three.options()), use)
    assert json.loads((three.results / "serving.json").read_text())["routes"]["default"]["model"] == "a"


def test_names_of_the_registry_are_followed_and_remembered_for_a_moment(three: Experiments) -> None:
    asked: list[str] = []

    def resolve(name: str) -> str | None:
        asked.append(name)
        return {"production": "b"}.get(name)

    async def use(host: ModelHost) -> None:
        assert [(await host.get("production")).saved.experiment_id for _ in range(5)] == ["b"] * 5
        assert asked == ["production"]
        with pytest.raises(ModelNotFoundError):
            await host.get("nothing")
        assert (await host.get("latest")).saved.experiment_id == "c"

    run(ModelHost(three.options(), resolve=resolve), use)


def test_services_with_the_same_file_serve_the_same(three: Experiments) -> None:
    async def use(first: ModelHost) -> None:
        second = ModelHost(three.options())
        await first.set_route(DEFAULT_ROUTE, Route("a"))
        assert second.find() is None
        await second.follow()
        followed = second.find()
        assert followed is not None, "loaded before the first request for it"
        assert followed.saved.experiment_id == "a"

        await first.set_route("x", Route("b"))
        await second.set_route("y", Route("c"))
        assert set(second.serving.routes) == {DEFAULT_ROUTE, "x", "y"}, "a change takes along what others changed"

        three.save_constant("a", 9)
        newer = await first.load("a")
        assert second.find() is followed
        await second.follow()
        found = second.find()
        assert found is not None
        assert found.saved.version == newer.saved.version

        await first.remove_route("x")
        await first.unload("b")
        await second.follow()
        assert second.find("b") is None
        second.close()

    run(ModelHost(three.options()), use)


def test_services_that_change_the_same_file_at_once_undo_nothing(three: Experiments) -> None:
    async def use(first: ModelHost) -> None:
        second = ModelHost(three.options())
        await first.set_route(DEFAULT_ROUTE, Route("a"))
        changes = [host.set_route(f"{host is first}-{n}", Route("b")) for n in range(20) for host in (first, second)]
        await asyncio.gather(*changes)
        await first.follow()
        await second.follow()
        assert first.serving == second.serving == ServingSet.read(three.options().state_file)
        assert len(first.serving.routes) == 41
        second.close()

    run(ModelHost(three.options()), use)


def test_a_service_that_starts_leaves_the_default_that_was_chosen_meanwhile(three: Experiments) -> None:
    async def use(first: ModelHost) -> None:
        await first.serve_newest()
        starting = ModelHost(three.options())
        await starting.restore()
        await first.set_route(DEFAULT_ROUTE, Route("a"))
        await starting.serve_newest()
        assert starting.serving.routes[DEFAULT_ROUTE] == Route("a")
        await first.follow()
        assert first.serving.routes[DEFAULT_ROUTE] == Route("a")
        starting.close()

    run(ModelHost(three.options()), use)


def test_what_another_service_serves_and_this_one_cannot_read_changes_nothing_here(three: Experiments) -> None:
    async def use(first: ModelHost) -> None:
        second = ModelHost(three.options())
        await first.set_route(DEFAULT_ROUTE, Route("a"))
        await second.follow()
        good = second.find()
        three.save_constant("a", 9)
        await first.load("a")
        spoil(three.results / "a" / "artifacts" / "final_model")
        await second.follow()
        assert second.find() is good
        assert "a" in second.failures
        three.options().state_file.write_text("not a set")
        with pytest.raises(CorruptFileError):
            await second.follow()
        assert second.find() is good
        second.close()

    run(ModelHost(three.options()), use)
