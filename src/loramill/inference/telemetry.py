"""What Prometheus reads: requests, batches, waiting texts, models."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from loramill.inference.batcher import BatchReport
from loramill.inference.served_model import ServedModel

LATENCIES = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0)
"""Seconds."""

TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Telemetry:
    """The metrics of one service, in a registry of their own."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        prefix = "loramill_inference"
        self._requests = Counter(
            f"{prefix}_requests_total", "Requests by route and status.", ["route", "status"], registry=registry
        )
        self._latency = Histogram(
            f"{prefix}_request_seconds", "Time from request to reply.", ["route"], registry=registry, buckets=LATENCIES
        )
        self._texts = Counter(
            f"{prefix}_texts_total", "Texts answered by model.", ["experiment", "version"], registry=registry
        )
        self._batch_seconds = Histogram(
            f"{prefix}_batch_seconds", "Time of one forward pass.", registry=registry, buckets=LATENCIES
        )
        self._batch_texts = Histogram(
            f"{prefix}_batch_texts", "Texts of one forward pass.", registry=registry, buckets=TEXTS
        )
        self._batch_tokens = Histogram(
            f"{prefix}_batch_tokens", "Tokens of one forward pass.", registry=registry, buckets=TOKENS
        )
        self._batch_models = Histogram(
            f"{prefix}_batch_models", "Models of one forward pass.", registry=registry, buckets=TEXTS
        )

    def observe_gauges(self, waiting: Callable[[], int], models: Callable[[], int], nbytes: Callable[[], int]) -> None:
        """Ask these whenever the metrics are read: waiting texts, models in memory, bytes of their adapters."""
        prefix = "loramill_inference"
        Gauge(f"{prefix}_waiting_texts", "Texts that wait.", registry=self._registry).set_function(waiting)
        Gauge(f"{prefix}_models", "Models in memory.", registry=self._registry).set_function(models)
        Gauge(f"{prefix}_adapter_bytes", "Memory of adapters.", registry=self._registry).set_function(nbytes)

    def count_request(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._latency.labels(route).observe(seconds)

    def count_texts(self, model: ServedModel, texts: int) -> None:
        self._texts.labels(model.saved.experiment_id, model.saved.version).inc(texts)

    def count_batch(self, report: BatchReport) -> None:
        self._batch_seconds.observe(report.seconds)
        self._batch_texts.observe(report.texts)
        self._batch_tokens.observe(report.tokens)
        self._batch_models.observe(report.models)

    def render(self) -> bytes:
        """The text format that Prometheus scrapes."""
        return generate_latest(self._registry)
