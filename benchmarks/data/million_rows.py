"""A million rows: validated, versioned, renamed, appended to and compared; beside the same checks in plain pandas.

    python benchmarks/data/million_rows.py [--rows 1000000] [--rounds 2] [--folder FOLDER]

The rows are made from the words of sample:movie_reviews (30 tokens on average) with planted faults, so that no check
comes out empty. Each measurement is a process of its own, in the order ours, pandas, pandas, ours. The pandas version
has every check for texts, labels and copies, but neither near copies nor versions: it writes a parquet file and a
SHA-256 of it instead.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FAULTS = ("<b>bold</b> and more", "salt &amp; pepper", "full of clichÃ©s", "  ", "https://example.org/only", "N/A")
EVERY = 1000


def make_rows(path: Path, rows: int, seed: int = 0) -> None:
    """Write a csv file of random sentences; of each thousand, ten rows are faulty, copied, or nearly copied."""
    from loramill.data.samples import load_sample

    texts = load_sample("movie_reviews", path.parent)["train"].texts
    words = np.asarray([word for text in texts for word in text.split()], dtype=object)
    random = np.random.RandomState(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(0, rows, EVERY):
            lengths = np.clip(random.poisson(30, EVERY), 3, None)
            chosen = np.split(words[random.randint(0, len(words), lengths.sum())], np.cumsum(lengths)[:-1])
            sentences = [" ".join(sentence) for sentence in chosen]
            sentences[: len(FAULTS)] = FAULTS
            sentences[500], sentences[501] = sentences[900], sentences[901]
            sentences[502] = " ".join([*sentences[902].split()[:-1], "changed"])
            labels = random.randint(0, 2, EVERY).tolist()
            labels[500] = labels[900]
            writer.writerows(zip(sentences, labels, strict=True))


def ours(path: Path, folder: Path) -> dict[str, float]:
    """Seconds of each step of ``loramill data validate`` and ``version``."""
    from loramill.config.schema import DataConfig
    from loramill.data.sources import load_source
    from loramill.data.validator import DataValidator
    from loramill.data.version_manager import DataVersionManager

    seconds = {}
    source, seconds["read"] = timed(lambda: load_source(DataConfig(dataset_name=str(path)), folder))
    report, seconds["validate"] = timed(lambda: DataValidator().validate(source.splits))
    manager = DataVersionManager(folder)
    stored, seconds["version"] = timed(lambda: manager.create(source.splits["train"], source=path.name))
    print(json.dumps(report.finding_counts), file=sys.stderr)
    return {**seconds, "stored_megabytes": stored.stored_bytes / 2**20}


def with_pandas(path: Path, folder: Path) -> dict[str, float]:
    """Seconds of the same checks as a notebook would have them."""
    import pandas as pd

    seconds = {}
    table, seconds["read"] = timed(lambda: pd.read_csv(path, keep_default_na=False, dtype={"text": str, "label": str}))
    _, seconds["validate"] = timed(lambda: pandas_checks(table))
    _, seconds["version"] = timed(lambda: pandas_copy(table, folder / "copy.parquet"))
    return {**seconds, "stored_megabytes": (folder / "copy.parquet").stat().st_size / 2**20}


def pandas_checks(table: Any) -> dict[str, int]:
    """Rows at fault by rule, with one pass of pandas for each."""
    from loramill.data.checks import texts as rules

    patterns = [rules.HTML_TAG, rules.HTML_ENTITY, rules.FORMULA, rules.PERSONAL, rules.CREDENTIAL, rules.UNBROKEN]
    patterns += [rules.ENCODED_TWICE, rules.ESCAPED, rules.PLACEHOLDER, rules.LINKS_ONLY, rules.REPEATED]
    patterns += [r"^\s*$", r"^\s|\s$", "\x00", "\ufffd", "\r", rules.CONTROL, rules.INVISIBLE, r"[^\W\d_]"]
    found = {}
    for pattern in patterns:
        plain = re.sub(r"\\x\{([0-9a-f]{4})\}", r"\\u\1", pattern)  # RE2's way to write a character
        plain = re.sub(r"(?<!\\)\((?!\?)", "(?:", plain)
        found[pattern[:20]] = int(table["text"].str.contains(plain, regex=True).sum())
    lengths = table["text"].str.len()
    found["length"] = int(((lengths < 1) | (lengths > 100_000)).sum())
    found["copies"] = int(table.duplicated(["text", "label"]).sum())
    found["conflicts"] = int((table.groupby("text")["label"].nunique() > 1).sum())
    found["labels"] = len(table["label"].value_counts())
    return found


def pandas_copy(table: Any, path: Path) -> str:
    table.to_parquet(path, compression="zstd")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def versions(path: Path, folder: Path) -> dict[str, float]:
    """Bytes that a renamed copy and an append of 1% store, and seconds of a diff in which every chunk differs."""
    from loramill.config.schema import DataConfig
    from loramill.data.diff import diff_versions
    from loramill.data.sources import load_source
    from loramill.data.version_manager import DataVersionManager

    manager = DataVersionManager(folder)
    rows = load_source(DataConfig(dataset_name=str(path)), folder).splits["train"]
    share = len(rows) // 101
    base = manager.create(rows.take(np.arange(len(rows) - share)))
    renamed = manager.create(rows.take(np.arange(len(rows) - share)), source="renamed")
    longer, append_seconds = timed(lambda: manager.create(rows))
    shuffled = manager.create(rows.take(np.random.RandomState(0).permutation(len(rows))))
    _, diff_seconds = timed(lambda: diff_versions(manager, base.version, shuffled.version))
    return {
        "renamed_bytes": renamed.stored_bytes,
        "append_percent": 100 * longer.stored_bytes / base.stored_bytes,
        "append": append_seconds,
        "diff": diff_seconds,
    }


PARTS: dict[str, Callable[[Path, Path], dict[str, float]]] = {"ours": ours, "pandas": with_pandas, "versions": versions}


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    outcome = work()
    return outcome, time.perf_counter() - start


def measure(part: str, path: Path) -> dict[str, float]:
    """One part in a process of its own, with its peak memory."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        command = [sys.executable, __file__, "--part", part, str(path), folder]
        result, seconds = timed(lambda: subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True))
    return {**json.loads(result.stdout), "whole_command": seconds}


def peak_megabytes() -> float:
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(peak[1]) / 1024 if peak else float("nan")


def show(name: str, measured: dict[str, float]) -> None:
    print(f"{name:10s}" + "".join(f"  {key} {value:,.2f}" for key, value in measured.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=1, help="repeat ours, pandas, pandas, ours")
    parser.add_argument("--folder", type=Path, help="where the files go (1 GB); a temporary folder if absent")
    parser.add_argument("--part", nargs=3, metavar=("PART", "FILE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        part, file, folder = options.part
        measured = PARTS[part](Path(file), Path(folder))
        print(json.dumps({**measured, "peak_megabytes": peak_megabytes()}))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "rows.csv"
        make_rows(path, options.rows)
        print(
            f"{options.rows:,} rows, {path.stat().st_size / 2**20:,.0f} MiB; seconds, and MiB at the peak", flush=True
        )
        for part in ["ours", "pandas", "pandas", "ours"] * options.rounds:
            show(part, measure(part, path))
        show("versions", measure("versions", path))


if __name__ == "__main__":
    main()
