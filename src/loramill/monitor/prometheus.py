"""Numbers of the service in Prometheus' format, counted when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, ProcessCollector, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST


def render_service_metrics(jobs: Mapping[str, int], queue_length: int | None) -> bytes:
    """One page of metrics.

    Args:
        jobs: status -> number of experiments.
        queue_length: messages that wait; ``None`` while the queue does not answer.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    counts = Gauge("loramill_jobs", "Experiments by status.", ["status"], registry=registry)
    for status, count in jobs.items():
        counts.labels(status).set(count)
    Gauge("loramill_queue_up", "Whether the queue answers.", registry=registry).set(queue_length is not None)
    if queue_length is not None:
        Gauge("loramill_queue_length", "Messages that wait.", registry=registry).set(queue_length)
    return generate_latest(registry)
