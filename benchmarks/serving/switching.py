"""Switching, memory and changes under load: what many adapters in one process cost.

    python benchmarks/serving/switching.py                    # 1,000 adapters, 200 switches, 4 loops of 20 s
    python benchmarks/serving/switching.py --adapters 50 --switches 20 --seconds 3

1. Switch, from memory: the time until a request that names another adapter has it; until requests that name none go to
   another one than before; and until the caller of that switch hears that it is on disk. Beside PEFT's ``load_adapter``
   + ``set_adapter`` for the same files, which is how a service on PEFT takes up an adapter.
2. Memory of the process with all adapters on one base.
3. A closed loop of 32 clients, in turn without and with 100 switches, loads and unloads. Every adapter answers with a
   probability of its own, and every reply is checked against the experiment that it names.
4. kill -9, start again: seconds until the first answer, and whether the same set is served.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch
from load import Connection, Outcome, bodies, closed_loop
from safetensors.torch import load_file, save_file
from workload import (
    DEFAULT_HOME,
    free_port,
    heading,
    held_out_texts,
    our_command,
    quiet_transformers,
    running_server,
    trained_model,
    variants,
)

from loramill.base_models import locate_base_model
from loramill.experiments.folder import ExperimentFolder
from loramill.inference.model_host import HostOptions, ModelHost
from loramill.inference.saved_model import SavedModel
from loramill.inference.serving_set import DEFAULT_ROUTE, Route

CHANGES = 100
CONSTANTS = 4
PEFT_ADAPTERS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", type=int, default=1000)
    parser.add_argument("--switches", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each loop")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--home", type=Path, default=DEFAULT_HOME)
    options = parser.parse_args()
    folders = variants(options.home, options.adapters)
    print(f"{heading()}\n")
    ours = asyncio.run(our_switches(options.home, folders, options.switches))
    theirs = peft_switches(folders[: min(PEFT_ADAPTERS, len(folders))])
    print(f"PEFT load_adapter + set_adapter, {len(theirs)} in turn: {describe(theirs)}; the last: {theirs[-1]:.2f} ms")
    for kind, taken in ours.items():
        print(f"Switch, {kind}: {describe(taken)}; PEFT's median is {median(theirs) / median(taken):.0f} times that")
    under_load(options.home, options.clients, options.seconds)


async def our_switches(home: Path, folders: Sequence[ExperimentFolder], count: int) -> dict[str, list[float]]:
    """Milliseconds of every kind of switch, with all adapters loaded."""
    process, state = psutil.Process(), Path(tempfile.mkdtemp()) / "serving.json"
    host = ModelHost(HostOptions(home / "results", state, torch.device("cpu"), torch.bfloat16))
    start, before = time.perf_counter(), process.memory_info().rss
    for folder in folders:
        await host.get(folder.id)
    seconds, after = time.perf_counter() - start, process.memory_info().rss
    adapters = sum(model.adapter.nbytes for model in host.resident)
    print(
        f"{len(folders)} adapters with their base: process {after / 2**30:.2f} GiB (before: {before / 2**30:.2f}), "
        f"adapters alone {adapters / 2**30:.2f} GiB; loaded and verified in {seconds:.1f} s"
    )
    draw = random.Random(0)
    taken: dict[str, list[float]] = {"another adapter named": [], "default moved": [], "the same on disk": []}
    for _ in range(count):
        times = await _switch(host, draw.choice(folders).id, draw.choice(folders).id)
        for kind, seconds in zip(taken, times, strict=True):
            taken[kind].append(seconds * 1000)
    host.close()
    return taken


async def _switch(host: ModelHost, named: str, default: str) -> tuple[float, float, float]:
    """Seconds until a request has the model that it names; until the default is another; until that is on disk."""
    start = time.perf_counter()
    await host.get(named)
    found = time.perf_counter() - start
    start = time.perf_counter()
    switch = asyncio.create_task(host.set_route(DEFAULT_ROUTE, Route(default)))
    while (model := host.find()) is None or model.saved.experiment_id != default:
        await asyncio.sleep(0)
    moved = time.perf_counter() - start
    await switch
    return found, moved, time.perf_counter() - start


def peft_switches(folders: Sequence[ExperimentFolder]) -> list[float]:
    """Milliseconds for every adapter after the first, added to those that are loaded already."""
    import peft
    from transformers import AutoModelForSequenceClassification

    quiet_transformers()
    base = locate_base_model(SavedModel.read(folders[0]).labels.base_model).folder
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    model = peft.PeftModel.from_pretrained(plain, folders[0].final_model, adapter_name="a0")
    taken = []
    for number, folder in enumerate(folders[1:], start=1):
        start = time.perf_counter()
        model.load_adapter(folder.final_model, adapter_name=f"a{number}")
        model.set_adapter(f"a{number}")
        taken.append((time.perf_counter() - start) * 1000)
    return taken


def under_load(home: Path, clients: int, seconds: float) -> None:
    """Changes while requests go on; then a kill and a restart."""
    names = [constant(home, number).id for number in range(CONSTANTS)]
    port = free_port()
    (home / "results" / f"serving_{port}.json").unlink(missing_ok=True)
    body = bodies(held_out_texts(home), [None, *names[:2]], [2, 1, 1])
    quiet, changed = [], []
    with running_server(our_command(port, names[0]), port, home) as process:
        asyncio.run(closed_loop(port, body, clients=clients, seconds=3, check=is_right))
        for turn in range(4):
            if turn % 2:
                changed.append(asyncio.run(loop_with_changes(port, body, clients, seconds, names)))
            else:
                quiet.append(asyncio.run(closed_loop(port, body, clients=clients, seconds=seconds, check=is_right)))
        before = asyncio.run(served(port))
        process.kill()
    for name, outcomes in (("no changes", quiet), (f"{CHANGES} changes", changed)):
        shown = ", ".join(
            f"{one.rate:.1f}/s p50 {one.percentile_ms(50):.0f} p99 {one.percentile_ms(99):.0f} ms" for one in outcomes
        )
        print(f"Under load, {name}: {shown}; failed or wrong: {sum(one.failures for one in outcomes)}")
    start = time.perf_counter()
    with running_server(our_command(port), port, home):
        answered = asyncio.run(first_answer(port))
        print(f"After kill -9: answers in {time.perf_counter() - start:.2f} s ({answered}); ", end="")
        print(f"same set: {asyncio.run(served(port)) == before}")


async def loop_with_changes(port: int, body: object, clients: int, seconds: float, names: Sequence[str]) -> Outcome:
    changes = asyncio.create_task(change_models(port, names, seconds / CHANGES))
    outcome = await closed_loop(port, body, clients=clients, seconds=seconds, check=is_right)  # type: ignore[arg-type]
    outcome.failures += await changes
    return outcome


async def change_models(port: int, names: Sequence[str], pause: float) -> int:
    """100 switches, loads and unloads; how many were refused. The last model is loaded and unloaded again and again."""
    connection, failures = Connection(port), 0
    for number in range(CHANGES):
        path = [f"{names[number % 3]}/switch", f"{names[-1]}/load", f"{names[-1]}/unload"][number % 3]
        status, reply = await connection.post(b"", f"/models/{path}")
        if status not in (200, 204):
            print(f"{path}: {status} {reply.decode()}", file=sys.stderr)
            failures += 1
        await asyncio.sleep(pause / 2)
    connection.close()
    return failures


async def served(port: int) -> dict[str, str]:
    """Experiment -> version of everything that is served, and where the default leads."""
    connection = Connection(port)
    status, content = await connection.post(b"", "/models", "GET")
    connection.close()
    assert status == 200, content
    reply = json.loads(content)
    return {model["experiment_id"]: model["version"] for model in reply["models"]} | {
        "default": reply["names"]["default"]["model"]
    }


async def first_answer(port: int) -> str:
    connection = Connection(port)
    status, reply = await connection.post(json.dumps({"text": "A warm film."}).encode())
    connection.close()
    return f"status {status}, right: {is_right(reply)}"


def is_right(reply: bytes) -> bool:
    """Whether a reply has the probability of the constant model that it names."""
    found = json.loads(reply)
    return abs(found["probability"] - probability(int(found["experiment_id"].rpartition("_")[2]))) < 1e-3


def probability(number: int) -> float:
    """What the model of this number says, as the probability of label 1."""
    return 0.55 + 0.1 * number


def constant(home: Path, number: int) -> ExperimentFolder:
    """An experiment that gives every text the same answer: a head without weights, with a bias of its own."""
    source, folder = trained_model(home), ExperimentFolder(home / "results" / f"constant_{number}")
    if not folder.metrics_file.is_file():
        shutil.rmtree(folder.path, ignore_errors=True)
        shutil.copytree(source.final_model, folder.final_model)
        weights = folder.final_model / "adapter_model.safetensors"
        tensors = load_file(weights)
        heads = {name: tensor for name, tensor in tensors.items() if "lora_" not in name}
        for name, tensor in heads.items():
            tensors[name] = torch.zeros_like(tensor)
            if tensor.ndim == 1 and len(tensor) == 2:
                chance = probability(number)
                tensors[name] = torch.tensor([0.0, float(torch.logit(torch.tensor(chance)))])
        save_file(tensors, weights)
        shutil.copyfile(source.metrics_file, folder.metrics_file)
    return folder


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def describe(milliseconds: Sequence[float]) -> str:
    ordered = sorted(milliseconds)
    return f"p50 {median(ordered):.3f} ms, p99 {ordered[int(0.99 * (len(ordered) - 1))]:.3f} ms"


if __name__ == "__main__":
    main()
