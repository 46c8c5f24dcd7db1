from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from loramill.monitor.performance import PerformanceMonitor, StepTimes
from loramill.monitor.resources import ResourceProbe, ResourceSample


def monitor_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "performance-monitor"]


def test_steps_become_speed_and_padding_share(tmp_path: Path) -> None:
    steps = StepTimes()
    for seconds in (0.1, 0.1, 0.1, 0.7):
        steps.add(rows=32, tokens=750, padded_tokens=1000, seconds=seconds)
    assert steps.summary() == {
        "steps": 4,
        "samples_per_second": pytest.approx(128),
        "tokens_per_second": pytest.approx(3000),
        "step_seconds_median": pytest.approx(0.1),
        "step_seconds_p95": pytest.approx(0.61),
        "padding_share": pytest.approx(0.25),
    }


def test_no_steps_are_no_speed() -> None:
    assert StepTimes().summary() == {}


def test_a_run_is_sampled_from_start_to_end(tmp_path: Path) -> None:
    samples: list[ResourceSample] = []
    started = time.monotonic()
    with PerformanceMonitor(tmp_path, interval=0.05, on_sample=samples.append) as monitor:
        monitor.record_step(rows=2, tokens=10, padded_tokens=10, seconds=0.01)
        time.sleep(0.5)
    assert 4 <= len(samples) <= 1 + (time.monotonic() - started) / 0.05
    assert [sample.seconds for sample in samples] == sorted(sample.seconds for sample in samples)
    summary = monitor.summary()
    assert summary["cpu_percent_max"] == max(sample.cpu_percent for sample in samples)
    assert summary["disk_free_bytes_min"] == min(sample.disk_free_bytes for sample in samples)
    assert summary["steps"] == 1
    assert all(isinstance(value, int | float) for value in summary.values())


def test_a_run_shorter_than_the_interval_is_sampled_once(tmp_path: Path) -> None:
    with PerformanceMonitor(tmp_path, interval=60) as monitor:
        pass
    assert monitor.summary()["rss_bytes_max"] > 0


def test_the_thread_ends_with_the_run_and_with_an_error(tmp_path: Path) -> None:
    with PerformanceMonitor(tmp_path, interval=60):
        assert len(monitor_threads()) == 1
    assert not monitor_threads()
    with pytest.raises(RuntimeError, match="the run failed"), PerformanceMonitor(tmp_path, interval=60):
        raise RuntimeError("the run failed")
    assert not monitor_threads()


def test_an_error_of_the_listener_is_logged_once_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[ResourceSample] = []

    def listener(sample: ResourceSample) -> None:
        heard.append(sample)
        raise OSError("disk full")

    with caplog.at_level(logging.WARNING), PerformanceMonitor(tmp_path, interval=0.02, on_sample=listener) as monitor:
        time.sleep(0.3)
    assert len(heard) > 2
    assert len(caplog.records) == 1
    assert monitor.summary()["rss_bytes_max"] > 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not count the peak")
def test_a_memory_peak_between_two_readings_is_seen() -> None:
    script = """
import time
from loramill.monitor.performance import PerformanceMonitor
with PerformanceMonitor(interval=60) as monitor:
    held = b"x" * 200_000_000
    del held
    time.sleep(0.15)
print(monitor.summary()["rss_bytes_max"])
"""
    ballast = b"x" * 400_000_000  # what the parent holds must not count
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 200_000_000 < int(done.stdout) < len(ballast)


def test_watching_costs_less_than_one_percent(tmp_path: Path) -> None:
    with ResourceProbe(tmp_path) as probe:
        started = time.thread_time()
        for _ in range(100):
            probe.read()
        reading = (time.thread_time() - started) / 100
    steps = StepTimes()
    started = time.thread_time()
    for _ in range(10_000):
        steps.add(32, 870, 896, 0.3)
    step = (time.thread_time() - started) / 10_000
    assert reading < 0.005  # once a second: half a percent
    assert step < 0.000_02  # the fastest step takes milliseconds
