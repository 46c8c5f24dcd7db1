"""What a training run costs: resources, sampled beside it in a thread, and the speed of its steps."""

from __future__ import annotations

import logging
import math
import threading
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np

from loramill.monitor.resources import ResourceProbe, ResourceSample, peak_rss_bytes

log = logging.getLogger(__name__)

MEANS = ("cpu_percent", "machine_cpu_percent", "gpu_percent")
MAXIMA = ("cpu_percent", "rss_bytes", "machine_memory_percent", "gpu_percent", "gpu_memory_bytes")
MINIMA = ("disk_free_bytes",)
LAST = ("disk_read_bytes", "disk_written_bytes")
SHORTEST_READING = 0.1
"""Seconds; CPU use over less than this is noise, as the kernel counts in ticks of a hundredth."""


class PerformanceMonitor:
    """Watches a run from ``with`` to the end of it; costs at most 1% of its time.

    Use::

        with PerformanceMonitor(folder) as monitor:
            monitor.record_step(rows=32, tokens=870, padded_tokens=896, seconds=0.31)
        metrics["system"] = monitor.summary()

    Args:
        folder: where the run writes; its disk's free space is watched.
        interval: seconds between two readings.
        on_sample: gets every reading, **in the sampling thread**. An error in it is logged once, and ends neither
            the run nor the sampling.
    """

    def __init__(
        self,
        folder: Path = Path(),
        *,
        interval: float = 1.0,
        on_sample: Callable[[ResourceSample], None] | None = None,
    ) -> None:
        self._probe = ResourceProbe(folder)
        self._interval = interval
        self._on_sample = on_sample
        self._resources = ResourceUse()
        self._steps = StepTimes()
        self._failed = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_stopped, name="performance-monitor", daemon=True)

    def __enter__(self) -> PerformanceMonitor:
        self._probe.__enter__()
        self._earlier_peak = peak_rss_bytes()
        self._thread.start()
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        if self._resources.age() >= SHORTEST_READING:
            self._sample()
        self._probe.__exit__(*error)

    def record_step(self, *, rows: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        """Note one optimizer step.

        Args:
            rows: texts (or pairs) in it.
            tokens: real tokens.
            padded_tokens: tokens computed, padding included; at least ``tokens``.
            seconds: how long it took.
        """
        self._steps.add(rows, tokens, padded_tokens, seconds)

    def summary(self) -> dict[str, float | int]:
        """The run so far as flat numbers, for ``metrics.json``; what could not be measured is left out."""
        summary = {**self._resources.summary(), **self._steps.summary()}
        peak = peak_rss_bytes()
        if peak is not None and peak > (self._earlier_peak or 0):  # then the process had its peak within this run
            summary["rss_bytes_max"] = max(peak + self._probe.most_children_bytes, summary.get("rss_bytes_max", 0))
        return summary

    def _sample_until_stopped(self) -> None:
        while not self._stop.wait(self._interval):
            self._sample()

    def _sample(self) -> None:
        try:
            sample = self._probe.read()
            self._resources.add(sample)
            if self._on_sample:
                self._on_sample(sample)
        except Exception:
            if not self._failed:
                log.warning("The performance monitor could not take or hand on a reading.", exc_info=True)
            self._failed = True


class ResourceUse:
    """Readings reduced to means and extremes as they come: a month of them takes no more memory than a minute."""

    def __init__(self) -> None:
        self._ranges: dict[str, Range] = {}
        self._last_reading = -math.inf

    def add(self, sample: ResourceSample) -> None:
        self._last_reading = time.monotonic()
        for field, value in sample.as_dict().items():
            if value is not None:
                self._ranges.setdefault(field, Range()).add(value)

    def age(self) -> float:
        """Seconds since the last reading."""
        return time.monotonic() - self._last_reading

    def summary(self) -> dict[str, float | int]:
        known = self._ranges
        return (
            {f"{field}_mean": known[field].total / known[field].count for field in MEANS if field in known}
            | {f"{field}_max": known[field].largest for field in MAXIMA if field in known}
            | {f"{field}_min": known[field].least for field in MINIMA if field in known}
            | {field: known[field].last for field in LAST if field in known}
        )


class Range:
    """Count, sum, least, largest and last of a stream of numbers."""

    def __init__(self) -> None:
        self.count = 0
        self.total: float = 0
        self.least: float = math.inf
        self.largest: float = -math.inf
        self.last: float = 0

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value
        self.least = min(self.least, value)
        self.largest = max(self.largest, value)
        self.last = value


class StepTimes:
    """Sizes and durations of optimizer steps: 8 bytes each, however long the run."""

    def __init__(self) -> None:
        self._seconds = array("d")
        self._rows = 0
        self._tokens = 0
        self._padded_tokens = 0

    def add(self, rows: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        self._seconds.append(seconds)
        self._rows += rows
        self._tokens += tokens
        self._padded_tokens += padded_tokens

    def summary(self) -> dict[str, float | int]:
        """Speed over the steps alone (evaluation and saving not counted); empty before the first step."""
        if not self._seconds:
            return {}
        seconds = np.array(self._seconds)
        total = max(float(seconds.sum()), 1e-9)
        return {
            "steps": len(seconds),
            "samples_per_second": self._rows / total,
            "tokens_per_second": self._tokens / total,
            "step_seconds_median": float(np.median(seconds)),
            "step_seconds_p95": float(np.quantile(seconds, 0.95)),
            "padding_share": 1 - self._tokens / self._padded_tokens if self._padded_tokens else 0.0,
        }
