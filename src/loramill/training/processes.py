"""Several processes that train one adapter together (data parallel): ``torchrun`` and ``accelerate launch`` start them.

Each process takes its share of every batch, and the gradients are summed, weighted by rows: the optimizer of each sees
the gradient of the whole batch, so all hold the same adapter. The first process alone writes and speaks.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from loramill.engine.low_rank_adapter import Adapter
from loramill.engine.step import StepResult
from loramill.engine.token_rows import IntArray

Choice = TypeVar("Choice", bound=str)


@dataclass(frozen=True)
class Processes:
    """Who trains together: this process is number ``rank`` of ``count``."""

    rank: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def share(self, rows: IntArray) -> IntArray:
        """The rows of a batch that this process takes; none where there are fewer rows than processes."""
        return rows[self.rank :: self.count]

    def combine(self, adapter: Adapter, own: StepResult, rows: int) -> StepResult:
        """Make the gradient and the numbers of this process's share those of the whole batch of ``rows``."""
        if self.count == 1:
            return own
        weight = own.rows / rows
        adapter.grads.mul_(weight)
        dist.all_reduce(adapter.grads)
        numbers = [own.loss * weight, own.rows, own.tokens, own.padded_tokens]
        loss, *counts = self._sum(numbers, adapter.grads.device)
        return StepResult(loss, *(round(count) for count in counts))

    def any(self, flag: bool) -> bool:
        """Whether any process says yes: what one does all have to do."""
        return flag if self.count == 1 else self._sum([float(flag)], _device())[0] > 0

    def agree(self, own: Choice | None, order: tuple[Choice, ...]) -> Choice | None:
        """What the processes say, if any says something: the first in ``order`` counts."""
        said = [choice for choice in order if self.any(own == choice)]
        return said[0] if said else None

    def sum_rows(self, values: Tensor) -> Tensor:
        """``values`` ``[rows, ...]`` summed over the processes; each has its own rows filled, zeros elsewhere."""
        if self.count > 1:
            moved = values.to(_device())
            dist.all_reduce(moved)
            values.copy_(moved)
        return values

    def tell(self, text: str) -> str:
        """A text of the first process, heard by all."""
        if self.count == 1:
            return text
        heard = [text]
        dist.broadcast_object_list(heard, src=0, device=_device())
        return heard[0]

    def wait(self) -> None:
        """Until all are here."""
        self.any(False)

    def _sum(self, numbers: list[float], device: torch.device) -> list[float]:
        dtype = torch.float32 if device.type == "mps" else torch.float64
        tensor = torch.tensor(numbers, dtype=dtype, device=device)
        dist.all_reduce(tensor)
        return [float(number) for number in tensor]


ALONE = Processes()


def started_together() -> bool:
    """Whether a launcher started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def join_processes() -> Processes:
    """Meet the others that the launcher started; alone when there are none."""
    if not started_together():
        return ALONE
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend)
    return Processes(dist.get_rank(), dist.get_world_size())


def leave_processes() -> None:
    """Part from the others, when all is done."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
