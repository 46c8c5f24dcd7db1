"""A sweep of 32 adapters on one GPU: loramill beside the Transformers Trainer with PEFT, in bfloat16.

    python benchmarks/training/gpu.py                        # 2,400 movie reviews, one epoch, 3 repeats
    python benchmarks/training/gpu.py --repeats 1 --trials 8

MiniLM-L6, LoRA on query and value, dropout 0, batch 32. The Trainer runs one adapter at a time, so that its samples/s
of one run are those of 32 runs in a row. Every run is a process of its own; contestants take turns (A-B-B-A). Before
anything is timed, the tests of CUDA's exactness have to pass. Needs the sample packages (`make samples`).
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import torch
from one_run import our_command, peer_command, run, spread, write_data
from sweep import RANKS, RATES, run_json, sweep_command

EXACTNESS = ["tests/engine/test_cuda.py", "tests/engine/test_packed_updates.py"]
PEERS = {
    "Trainer + PEFT, dynamic padding, bf16": ["--style", "dynamic", "--bf16"],
    "Trainer + PEFT, grouped lengths, bf16": ["--style", "grouped", "--bf16"],
}
ONE, MANY = "loramill train, bf16", "loramill sweep, bf16"
Seen = dict[str, list[dict[str, float]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2400)
    parser.add_argument("--trials", type=int, default=32, help="a multiple of 8: 4 rates x 2 ranks x seeds")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("This machine has no CUDA device.")
    subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *EXACTNESS], check=True)
    names = [*PEERS, ONE, MANY]
    seen: Seen = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="loramill-bench-") as scratch:
        data, home = write_data(Path(scratch) / "data", options.rows), Path(scratch) / "home"
        for turn in range(options.repeats):
            for name in names if turn % 2 == 0 else reversed(names):
                seen[name].append(contest(name, data, home, options.trials))
                print(f"{name}: {seen[name][-1]}", file=sys.stderr, flush=True)
    print(table(seen, options.rows, options.trials))


def contest(name: str, data: Path, home: Path, trials: int) -> dict[str, float]:
    if name in PEERS:
        return run(peer_command(data, [*PEERS[name], "--batch", "32"]), home)
    if name == ONE:
        return run(our_command(data, "true"), home)
    seeds = [str(seed) for seed in range(1, trials // (len(RATES) * len(RANKS)) + 1)]
    axes = {"training.learning_rate": RATES, "lora.r": RANKS, "training.seed": seeds}
    flags = [word for key, values in axes.items() for word in ("--grid", f"{key}={','.join(values)}")]
    started = time.perf_counter()
    document = run_json(sweep_command(data, "true", flags), home)
    seconds = time.perf_counter() - started
    found = [trial["metrics"] for trial in document["trials"] if trial["status"] == "SUCCESS"]
    if len(found) != trials:
        raise SystemExit(f"{len(found)} trials ended well, not {trials}")
    return {
        "samples_per_second": found[0]["system"]["samples_per_second"],
        "command_seconds": seconds,
        "accuracy": max(metrics["eval"]["accuracy"] for metrics in found),
    }


def table(seen: Seen, rows: int, trials: int) -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "peft"))
    speed = {
        name: statistics.median(found["samples_per_second"] for found in results) for name, results in seen.items()
    }
    best = max(speed[name] for name in PEERS)
    lines = [
        f"{time.strftime('%Y-%m-%d')}, {torch.cuda.get_device_name()}, {rows} rows, {trials} trials in the sweep, "
        f"{platform.machine()}, Python {platform.python_version()}, {versions}; medians of "
        f"{len(next(iter(seen.values())))}",
        "",
        "| | samples/s in training | of the Trainer's best | whole command, s | accuracy (best) |",
        "|---|---|---|---|---|",
    ]
    for name, results in seen.items():
        cells = [
            spread([result["samples_per_second"] for result in results], "{:,.0f}"),
            f"{speed[name] / best:.2f}x",
            spread([result["command_seconds"] for result in results], "{:.1f}"),
            spread([result["accuracy"] for result in results], "{:.4f}"),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
