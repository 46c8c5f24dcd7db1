"""Numbers of a worker in Prometheus' format, served on a port of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

import psutil
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

DURATIONS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
"""Seconds."""

Speeds = Callable[[], float]


class WorkerMetrics:
    """What one worker has done since it began, and what it does now.

    Args:
        tokens_per_second: asked at each scrape: the speed of all jobs of this worker together.
    """

    def __init__(self, tokens_per_second: Speeds) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._ended = Counter("loramill_attempts", "Attempts at jobs by outcome.", ["outcome"], registry=self.registry)
        self._seconds = Histogram(
            "loramill_attempt_seconds", "Duration of attempts.", ["outcome"], buckets=DURATIONS, registry=self.registry
        )
        self.registry.register(_Now(tokens_per_second))

    def attempt_ended(self, outcome: str, seconds: float) -> None:
        self._ended.labels(outcome).inc()
        self._seconds.labels(outcome).observe(seconds)

    @contextlib.contextmanager
    def served(self, port: int | None, address: str = "127.0.0.1") -> Iterator[None]:
        """``/metrics`` answers on a port as long as the block lasts; nothing without a port."""
        if port is None:
            yield
            return
        server, thread = start_http_server(port, addr=address, registry=self.registry)
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Now(Collector):
    """What is measured when somebody asks."""

    def __init__(self, tokens_per_second: Speeds) -> None:
        self._tokens_per_second = tokens_per_second

    def collect(self) -> Iterable[Metric]:
        children = _children()
        cpu, memory = sum(seconds for seconds, _ in children), sum(rss for _, rss in children)
        yield GaugeMetricFamily("loramill_children", "Processes of jobs, those that wait too.", value=len(children))
        yield GaugeMetricFamily("loramill_children_cpu_seconds", "CPU time of the living ones.", value=cpu)
        yield GaugeMetricFamily("loramill_children_resident_bytes", "Memory of the living ones.", value=memory)
        yield GaugeMetricFamily("loramill_tokens_per_second", "Of all jobs now.", value=self._tokens_per_second())
        yield from _gpu_metrics()


def _children() -> list[tuple[float, int]]:
    """(CPU seconds, resident bytes) of each process that this one started."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = child.cpu_times()
            found.append((times.user + times.system, child.memory_info().rss))
    return found


def _gpu_metrics() -> Iterable[Metric]:
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no GPU
        return
    usage = GaugeMetricFamily("loramill_gpu_utilization_percent", "Of each GPU.", labels=["gpu"])
    memory = GaugeMetricFamily("loramill_gpu_memory_bytes", "In use on each GPU.", labels=["gpu"])
    for index in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        with contextlib.suppress(pynvml.NVMLError):  # a slice of a GPU (MIG) does not say
            memory.add_metric([str(index)], pynvml.nvmlDeviceGetMemoryInfo(handle).used)
            usage.add_metric([str(index)], pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    pynvml.nvmlShutdown()
    yield from (usage, memory)
