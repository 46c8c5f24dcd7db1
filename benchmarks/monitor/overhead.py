"""What the performance monitor costs a run: the same work watched and not watched, A-B-B-A.

    python benchmarks/monitor/overhead.py [--repeats 5] [--seconds 10]

The work is matrix products of the size of a small encoder's layer, cut into steps as short as training ever has them
(some 10 ms), with a reading every second. Other processes disturb the wall time most, CPU time less, and the CPU time
of the monitor's own thread hardly at all.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import threading
import time
from collections.abc import Callable

import numpy as np

from loramill.monitor.performance import PerformanceMonitor


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of the performance monitor.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()

    steps = steps_for(arguments.seconds)
    overheads: dict[str, list[float]] = {"wall": [], "CPU": [], "own thread": []}
    for _ in range(arguments.repeats):
        plain, watched, watched_again, plain_again = (run(steps, watch) for watch in (False, True, True, False))
        for kind in ("wall", "CPU"):
            overheads[kind].append((watched[kind] + watched_again[kind]) / (plain[kind] + plain_again[kind]) - 1)
        overheads["own thread"].append(watched["own thread"] / watched["wall"])
    for kind, values in overheads.items():
        median, least, most = (100 * pick(values) for pick in (statistics.median, min, max))
        print(f"{kind:<10} median {median:+.3f}%   from {least:+.3f}% to {most:+.3f}%")


def steps_for(seconds: float) -> int:
    """How many steps take about that long here."""
    step = make_step()
    step()
    started = time.perf_counter()
    for _ in range(50):
        step()
    return int(seconds / ((time.perf_counter() - started) / 50))


def run(steps: int, watch: bool) -> dict[str, float]:
    """Seconds that the work took: of the clock, of the process's CPU time, of the monitor's thread's CPU time."""
    step = make_step()
    monitor = PerformanceMonitor() if watch else None
    cpu, wall, own = time.process_time(), time.perf_counter(), 0.0
    with monitor or contextlib.nullcontext():
        for _ in range(steps):
            started = time.perf_counter()
            step()
            if monitor:
                monitor.record_step(rows=32, tokens=870, padded_tokens=896, seconds=time.perf_counter() - started)
        own = sum(cpu_seconds(thread) for thread in threading.enumerate() if thread.name == "performance-monitor")
    return {"wall": time.perf_counter() - wall, "CPU": time.process_time() - cpu, "own thread": own}


def cpu_seconds(thread: threading.Thread) -> float:
    assert thread.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def make_step() -> Callable[[], object]:
    """About 10 ms of matrix products: ``[896, 384] @ [384, 1536]``, five times."""
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal(shape, dtype=np.float32) for shape in ((896, 384), (384, 1536)))
    return lambda: [left @ right for _ in range(5)]


if __name__ == "__main__":
    main()
