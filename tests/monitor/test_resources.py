from __future__ import annotations

import mmap
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import psutil
import pytest

from loramill.monitor import resources
from loramill.monitor.resources import GpuProbe, ResourceProbe


def burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_a_busy_process_reads_busier_than_an_idle_one(tmp_path: Path) -> None:
    with ResourceProbe(tmp_path) as probe:
        time.sleep(0.3)
        idle = probe.read()
        started = time.monotonic()
        burn(0.3)
        share = 100 * 0.3 / (time.monotonic() - started)  # other processes may hold the core as well
        busy = probe.read()
    assert idle.cpu_percent < 30
    assert busy.cpu_percent == pytest.approx(share, abs=25)
    assert 0 <= busy.machine_cpu_percent <= 100.1
    assert 0.25 < idle.seconds < busy.seconds


def test_memory_and_disk_are_those_of_this_process(tmp_path: Path) -> None:
    with ResourceProbe(tmp_path / "not" / "there" / "yet") as probe:
        before = probe.read()
        with mmap.mmap(-1, 50_000_000) as held:  # memory of Python's own might be some that was free before
            held.write(b"x" * len(held))
            after = probe.read()
    assert after.rss_bytes - before.rss_bytes > 40_000_000
    assert after.disk_free_bytes > 0


WORK = """
import sys, time
held = b"x" * 50_000_000
print("ready", flush=True)
while time.process_time() < 60:
    pass
"""


def cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists a process's children for little")
def test_the_children_of_this_process_count_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "COUNTING_SHARE", 0)  # counted anew at every reading, however long it takes
    with ResourceProbe(tmp_path) as probe:
        alone = probe.read()
        with subprocess.Popen([sys.executable, "-c", WORK], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline()
            probe.read()
            worked = cpu_seconds(child.pid)
            started = time.monotonic()
            time.sleep(1)
            share = 100 * (cpu_seconds(child.pid) - worked) / (time.monotonic() - started)
            beside = probe.read()
            child.kill()
    assert beside.rss_bytes - alone.rss_bytes > 40_000_000
    assert probe.most_children_bytes > 50_000_000
    assert beside.cpu_percent == pytest.approx(share, abs=25)


def test_a_child_that_ends_while_it_is_counted_counts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        listed = psutil.Process(child.pid)
        child.kill()
    monkeypatch.setattr(resources, "children", lambda: [listed])
    with ResourceProbe(tmp_path) as probe:
        assert probe.read().rss_bytes > 0
        assert probe.most_children_bytes == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts a process's disk traffic")
def test_disk_traffic_counts_from_the_start_of_the_run(tmp_path: Path) -> None:
    with ResourceProbe(tmp_path) as probe:
        assert probe.read().disk_written_bytes is not None
        assert probe.read().disk_written_bytes < 10_000_000  # type: ignore[operator]


class FakeNvml(ModuleType):
    """The part of NVML that is asked, for machines without a GPU. Two GPUs: 40% and 80% busy, 1 and 3 GB used."""

    class NVMLError(Exception):
        pass

    def __init__(self, *, broken: bool = False) -> None:
        super().__init__("pynvml")
        self.open = False
        self.broken = broken

    def nvmlInit(self) -> None:  # noqa: N802
        if self.broken:
            raise self.NVMLError("driver not loaded")
        self.open = True

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open = False

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if index > 1:
            raise self.NVMLError("invalid argument")
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802
        return {"GPU-a": 0, "GPU-b": 1}[uuid]

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(gpu=(40, 80)[handle])

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(used=(1_000_000_000, 3_000_000_000)[handle])


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, (60.0, 3_000_000_000)),
        ("0", (40.0, 1_000_000_000)),
        ("1, 0", (60.0, 3_000_000_000)),
        ("GPU-b", (80.0, 3_000_000_000)),
        ("0,-1,1", (40.0, 1_000_000_000)),
        ("", (None, None)),
        ("-1", (None, None)),
        ("7", (None, None)),
    ],
)
def test_only_visible_gpus_count(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: tuple[float | None, int | None]
) -> None:
    nvml = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    probe = GpuProbe()
    probe.open()
    assert probe.read() == expected
    probe.close()
    assert not nvml.open
    assert probe.read() == (None, None)


@pytest.mark.parametrize("nvml", [None, FakeNvml(broken=True)], ids=["not installed", "no driver"])
def test_without_a_gpu_nothing_is_said(monkeypatch: pytest.MonkeyPatch, nvml: ModuleType | None) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    probe = GpuProbe()
    probe.open()
    assert probe.read() == (None, None)
    probe.close()
