"""A sweep of 16 trials on this machine's CPU: one `loramill sweep` beside 16 Trainer + PEFT processes in a row.

    python benchmarks/training/sweep.py                      # 4 rates x 2 ranks x 2 seeds, 2,400 movie reviews, 1 epoch
    python benchmarks/training/sweep.py --rows 300 --trials 4 --repeats 1     # to see that it works

MiniLM-L6, LoRA on query and value, dropout 0, batch 32, in the type that products are faster in here. Times are of
whole commands, start-up and evaluation included: that is what a user waits for. Contestants take turns (A-B-B-A over
the repeats). The best accuracy of each is shown, since a sweep that stops trials early may stop the best one. Needs the
sample packages (`make samples`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

from one_run import MODEL, peer_command, run, write_data

from loramill.training.device import choose_device

RATES, RANKS, SEEDS = ("5e-4", "1e-3", "2e-3", "4e-3"), ("4", "8"), ("1", "2")
FASTER_TYPE = choose_device("cpu").precision
PEERS = {
    "Trainer + PEFT for each, dynamic padding, float32": ["--style", "dynamic"],
    f"Trainer + PEFT for each, grouped lengths, {FASTER_TYPE}": [
        *("--style", "grouped"),
        *(["--bf16"] if FASTER_TYPE == "bfloat16" else []),
    ],
}
OURS: dict[str, list[str]] = {
    f"loramill sweep, {FASTER_TYPE}": [],
    f"loramill sweep --halving, {FASTER_TYPE}": ["--halving"],
}
Seen = dict[str, list[dict[str, float]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2400)
    parser.add_argument("--trials", type=int, default=16, help="only the first so many of the grid")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", default="", help="contestants whose name has this in it")
    options = parser.parse_args()
    grid = list(itertools.product(RATES, RANKS, SEEDS))[: options.trials]
    names = [name for name in (*PEERS, *OURS) if options.only in name]
    seen: Seen = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="loramill-bench-") as scratch:
        data = write_data(Path(scratch) / "data", options.rows)
        for turn in range(options.repeats):
            for name in names if turn % 2 == 0 else reversed(names):
                home = Path(scratch) / "home"
                seen[name].append(
                    run_peers(name, data, grid, home) if name in PEERS else run_ours(name, data, grid, home)
                )
                print(f"{name}: {seen[name][-1]}", file=sys.stderr, flush=True)
    print(table(seen, options.rows, len(grid)))


def run_peers(name: str, data: Path, grid: list[tuple[str, str, str]], home: Path) -> dict[str, float]:
    """One process for each trial, one after another."""
    seconds, best = 0.0, 0.0
    for rate, rank, seed in grid:
        flags = [*PEERS[name], "--batch", "32", "--rate", rate, "--rank", rank, "--seed", seed]
        found = run(peer_command(data, flags), home)
        seconds, best = seconds + found["command_seconds"], max(best, found["accuracy"])
    return {"seconds": seconds, "accuracy": best}


def run_ours(name: str, data: Path, grid: list[tuple[str, str, str]], home: Path) -> dict[str, float]:
    keys = ("training.learning_rate", "lora.r", "training.seed")
    values = [list(dict.fromkeys(column)) for column in zip(*grid, strict=True)]
    axes = [word for key, own in zip(keys, values, strict=True) for word in ("--grid", f"{key}={','.join(own)}")]
    started = time.perf_counter()
    document = run_json(sweep_command(data, [*OURS[name], *axes]), home)
    accuracies = [trial["metrics"]["eval"]["accuracy"] for trial in document["trials"] if trial["status"] == "SUCCESS"]
    if len(document["trials"]) != len(grid):
        raise SystemExit(f"{len(document['trials'])} trials ran, not {len(grid)}: choose --trials 16, 8, 4 or 2")
    return {"seconds": time.perf_counter() - started, "accuracy": max(accuracies)}


def sweep_command(data: Path, flags: list[str]) -> list[str]:
    sets = {
        "model.name": MODEL,
        "data.dataset_name": str(data),
        "lora.lora_dropout": "0",
        "training.per_device_train_batch_size": "32",
        "training.warmup_ratio": "0.05",
        "training.logging_steps": "50",
    }
    command = [str(Path(sys.executable).with_name("loramill")), "sweep", "--json", *flags]
    return command + [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]


def run_json(command: list[str], home: Path) -> dict:
    home.mkdir(exist_ok=True)
    environment = {**os.environ, "LORAMILL_HOME": str(home), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if finished.returncode != 0:
        raise SystemExit(f"{command} failed:\n{finished.stderr[-3000:]}")
    return json.loads(finished.stdout)


def table(seen: Seen, rows: int, trials: int) -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "peft", "loramill"))
    medians = {name: statistics.median(result["seconds"] for result in results) for name, results in seen.items()}
    peers = [name for name in seen if name in PEERS]
    lines = [
        f"{time.strftime('%Y-%m-%d')}, {trials} trials on {rows} rows, {os.cpu_count()} cores ({platform.machine()}), "
        f"{versions}; medians of {len(next(iter(seen.values())))}",
        "",
        "| | whole sweep, s | "
        + " | ".join(f"times faster than {peer.split(', ', 1)[1]}" for peer in peers)
        + " | best accuracy |",
        "|" + "---|" * (3 + len(peers)),
    ]
    for name, results in seen.items():
        spread = (
            f"{medians[name]:.1f} ({min(r['seconds'] for r in results):.1f}-{max(r['seconds'] for r in results):.1f})"
        )
        ratios = " | ".join(f"{medians[peer] / medians[name]:.2f}" for peer in peers)
        best = statistics.median(result["accuracy"] for result in results)
        lines.append(f"| {name} | {spread} | {ratios}{' | ' if peers else ''}{best:.4f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
