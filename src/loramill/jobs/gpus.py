"""Which GPU a job gets: the one with the fewest jobs of this worker."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence

from loramill.monitor.resources import visible_gpu_names


class GpuSlots:
    """The GPUs of one worker, as ``CUDA_VISIBLE_DEVICES`` names them: an index, or a UUID."""

    def __init__(self, names: Sequence[str]) -> None:
        self._jobs = dict.fromkeys(names, 0)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._jobs)

    @contextlib.contextmanager
    def taken(self) -> Iterator[str | None]:
        """The GPU that is least in use; ``None`` where there is none."""
        with self._lock:
            name = min(self._jobs, key=self._jobs.__getitem__, default=None)
            if name is not None:
                self._jobs[name] += 1
        try:
            yield name
        finally:
            if name is not None:
                with self._lock:
                    self._jobs[name] -= 1


def find_gpus() -> list[str]:
    """Names of the GPUs that this process may use: those of ``CUDA_VISIBLE_DEVICES``, or all that NVML sees."""
    visible = visible_gpu_names()
    if visible is not None:
        return visible
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # neither the package nor a driver has to be there
        return []
    try:
        return [str(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()
