from __future__ import annotations

import socket
import subprocess
import sys

import httpx
from prometheus_client import generate_latest

from loramill.monitor.worker_metrics import WorkerMetrics


def test_attempts_and_children_are_counted() -> None:
    metrics = WorkerMetrics(lambda: 1234.5)
    metrics.attempt_ended("SUCCESS", 42.0)
    metrics.attempt_ended("PENDING", 3.0)
    others = metrics.registry.get_sample_value("loramill_children")  # of other tests in this process
    assert others is not None
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE):
        text = generate_latest(metrics.registry).decode()
    assert 'loramill_attempts_total{outcome="SUCCESS"} 1.0' in text
    assert 'loramill_attempt_seconds_bucket{le="60.0",outcome="SUCCESS"} 1.0' in text
    assert f"loramill_children {others + 1}" in text
    assert "loramill_tokens_per_second 1234.5" in text


def test_they_are_served_as_long_as_the_block_lasts() -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    with WorkerMetrics(lambda: 0.0).served(port):
        assert "loramill_children" in httpx.get(f"http://127.0.0.1:{port}/metrics").text
