"""How a service uses the machine that it finds."""

from __future__ import annotations

import torch

from loramill.inference.batcher import BatchLimits

MOST_WORKERS = 4
"""Forward passes side by side on a CPU. One thread each is the most efficient; Python itself limits their number."""

GPU_BATCH_TOKENS = 16_384


def default_batch_limits(device: torch.device) -> BatchLimits:
    """Workers, threads and batch size for a device.

    On a CPU, passes side by side beat one pass on all cores: the many small operations of a pass do not spread over
    cores, and a barrier after each large one costs more than it gives.
    """
    if device.type != "cpu":
        return BatchLimits(workers=1, threads=1, batch_tokens=GPU_BATCH_TOKENS)
    cores = torch.get_num_threads()
    workers = min(cores, MOST_WORKERS)
    return BatchLimits(workers=workers, threads=max(1, cores // workers))
