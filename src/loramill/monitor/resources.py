"""What this process and its machine are using right now: CPU, memory, disk, GPUs."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from loramill.files import nearest_existing

CLOCK_TICK = 0.01
"""Seconds; the kernel counts CPU time in these."""

COUNTING_SHARE = 200
"""Counting the memory of children may take one second in so many."""


@dataclass(frozen=True)
class ResourceSample:
    """One reading. ``None`` where the machine does not say.

    Attributes:
        seconds: time since the probe was opened.
        cpu_percent: of this process and its children since the last reading; 100 is one busy core.
        machine_cpu_percent: of all cores, all processes, since the last reading.
        rss_bytes: memory of this process that is in RAM, with what its children do not share with it.
        machine_memory_percent: share of the RAM that is in use.
        disk_free_bytes: free where the run writes.
        disk_read_bytes, disk_written_bytes: by this process since the probe was opened.
        gpu_percent: mean over the GPUs that this process may use, of the time that a kernel ran.
        gpu_memory_bytes: in use (by everyone) on the fullest of these GPUs.
    """

    seconds: float
    cpu_percent: float
    machine_cpu_percent: float
    rss_bytes: int
    machine_memory_percent: float
    disk_free_bytes: int
    disk_read_bytes: int | None
    disk_written_bytes: int | None
    gpu_percent: float | None
    gpu_memory_bytes: int | None

    def as_dict(self) -> dict[str, float | int | None]:
        return asdict(self)


class ResourceProbe:
    """Reads ``ResourceSample`` on demand; a context manager, since the GPU driver is opened and closed.

    Args:
        folder: on the disk whose free space matters; need not exist yet.

    Attributes:
        most_children_bytes: the most memory that the children were seen to have for themselves.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = nearest_existing(folder)
        self._process = psutil.Process()
        self._cpu = CpuMeter(self._process)
        self._gpus = GpuProbe()
        self._children_bytes = self.most_children_bytes = 0
        self._count_again = 0.0

    def __enter__(self) -> ResourceProbe:
        self._gpus.open()
        self._started = time.monotonic()
        self._first_read, self._first_written = self._disk_traffic()
        self._cpu.read()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._gpus.close()

    def read(self) -> ResourceSample:
        """Take one reading; costs well under a millisecond without a GPU."""
        cpu_percent, machine_cpu_percent = self._cpu.read()
        read, written = self._disk_traffic()
        gpu_percent, gpu_memory_bytes = self._gpus.read()
        return ResourceSample(
            seconds=time.monotonic() - self._started,
            cpu_percent=cpu_percent,
            machine_cpu_percent=machine_cpu_percent,
            rss_bytes=self._process.memory_info().rss + self._count_children(),
            machine_memory_percent=psutil.virtual_memory().percent,
            disk_free_bytes=psutil.disk_usage(str(self._folder)).free,
            disk_read_bytes=_difference(read, self._first_read),
            disk_written_bytes=_difference(written, self._first_written),
            gpu_percent=gpu_percent,
            gpu_memory_bytes=gpu_memory_bytes,
        )

    def _count_children(self) -> int:
        """Memory that the children have for themselves, as it was lately: counting it takes milliseconds for each."""
        now = time.monotonic()
        if now >= self._count_again:
            self._children_bytes = bytes_of_children()
            self.most_children_bytes = max(self.most_children_bytes, self._children_bytes)
            self._count_again = now + COUNTING_SHARE * (time.monotonic() - now)
        return self._children_bytes

    def _disk_traffic(self) -> tuple[int | None, int | None]:
        try:
            counters = self._process.io_counters()
        except (AttributeError, psutil.Error, OSError):  # macOS has no such counters; a container may hide them
            return None, None
        return counters.read_bytes, counters.write_bytes


class CpuMeter:
    """CPU use between two readings. psutil's own percentages are kept per thread, and a run is read from two."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._last = self._counters()

    def read(self) -> tuple[float, float]:
        """Percent since the last reading: of this process (100 is one core), and of the whole machine."""
        before, self._last = self._last, self._counters()
        wall, own, busy, total = (now - then for now, then in zip(self._last, before, strict=True))
        return 100 * own / max(wall, CLOCK_TICK), 100 * busy / max(total, CLOCK_TICK)

    def _counters(self) -> tuple[float, float, float, float]:
        """Seconds: of the clock, of CPU time of this process and its children, of busy cores, of all cores."""
        own = _cpu_seconds(self._process) + sum(map(_cpu_seconds, children()))
        machine = psutil.cpu_times()._asdict()
        total = sum(machine.values()) - machine.get("guest", 0) - machine.get("guest_nice", 0)  # counted in user
        idle = machine["idle"] + machine.get("iowait", 0)
        return time.monotonic(), own, total - idle, total


class GpuProbe:
    """Utilization and memory of the NVIDIA GPUs that this process may use; nothing where there are none."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._handles: list[Any] = []

    def open(self) -> None:
        try:
            import pynvml
        except ImportError:  # comes with the extra "train"
            return
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlInit()
            self._nvml = pynvml
            self._handles = _visible_gpus(pynvml)

    def close(self) -> None:
        if self._nvml:
            with contextlib.suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()
        self._nvml, self._handles = None, []

    def read(self) -> tuple[float | None, int | None]:
        """Mean utilization in percent, and bytes in use on the fullest GPU."""
        if not self._handles:
            return None, None
        try:
            percents = [self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu for handle in self._handles]
            used = [self._nvml.nvmlDeviceGetMemoryInfo(handle).used for handle in self._handles]
        except self._nvml.NVMLError:  # a slice of a GPU (MIG) does not say
            return None, None
        return sum(percents) / len(percents), max(used)


def children() -> list[psutil.Process]:
    """The processes that this one started and that still run; none where the system has no list of them.

    ``psutil`` would look at every process of the machine.
    """
    with contextlib.suppress(OSError):
        listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
        return list(_alive(map(int, listed.split())))
    return []


def _alive(pids: Iterable[int]) -> Iterator[psutil.Process]:
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            yield psutil.Process(pid)


def _cpu_seconds(process: psutil.Process) -> float:
    """CPU time of a process and of the children it has waited for; nothing of one that has just ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)
    return 0.0


def bytes_of_children() -> int:
    """Memory of the children that they do not share with anybody."""
    total = 0
    for child in children():
        with contextlib.suppress(psutil.Error):
            total += child.memory_full_info().uss
    return total


def peak_rss_bytes() -> int | None:
    """The most RAM that this process held since it began, as the operating system counted it; ``None`` on Windows."""
    with contextlib.suppress(OSError):  # Linux's getrusage would count what the parent held before it started us
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), None)
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def visible_gpu_names() -> list[str] | None:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` names, by index or UUID; ``None`` where this process may use all.

    CUDA takes -1 as "none of what follows".
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return None
    names = filter(None, map(str.strip, visible.split(",")))
    return list(itertools.takewhile(lambda name: not name.startswith("-"), names))


def _visible_gpus(nvml: Any) -> list[Any]:
    names = visible_gpu_names()
    if names is None:
        names = [str(index) for index in range(nvml.nvmlDeviceGetCount())]
    return [
        nvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdecimal() else nvml.nvmlDeviceGetHandleByUUID(name)
        for name in names
    ]


def _difference(now: int | None, before: int | None) -> int | None:
    return None if now is None or before is None else now - before
