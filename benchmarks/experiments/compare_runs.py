"""Comparing 20 runs of 2,000 evaluated rows each: parameters, metrics, curves and the verdict. Goal: 500 ms.

python benchmarks/experiments/compare_runs.py
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from loramill.experiments.compare import compare_runs

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from run_folders import make_run

RUNS, ROWS, TIMES = 20, 2_000, 10


def main() -> None:
    with tempfile.TemporaryDirectory() as results:
        draw = np.random.default_rng(0)
        folders = [make_run(Path(results), number=number, right=draw.random(ROWS) < 0.8) for number in range(RUNS)]
        clock, cpu = [], []
        for _ in range(TIMES):
            start, used = time.perf_counter(), time.process_time()
            compare_runs(folders)
            clock.append((time.perf_counter() - start) * 1e3)
            cpu.append((time.process_time() - used) * 1e3)
    figures = {"first": clock[0], "median": float(np.median(clock)), "worst": max(clock)}
    cpu_figures = {"cpu_first": cpu[0], "cpu_median": float(np.median(cpu)), "cpu_worst": max(cpu)}
    print(json.dumps({"goal_ms": 500, **figures, **cpu_figures, "load_1_min": os.getloadavg()[0]}, indent=2))


if __name__ == "__main__":
    main()
