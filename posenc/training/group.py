"""The processes that train one cell together, one a GPU: data-parallel by torch's DDP, or just this process alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Group:
    """One of `size` processes. The first (`rank` 0) decides, scores and writes; the others only train."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """The mean of each value over all processes, the same in each, on the values' device."""
        if self.size == 1:
            return values
        total = values.clone()
        distributed.all_reduce(total)
        return total / self.size

    def decide(self, choice: int) -> int:
        """The first process's choice, for all."""
        if self.size == 1:
            return choice
        chosen = torch.tensor(choice)  # on the CPU: no step waits for a GPU to learn whether to go on
        distributed.broadcast(chosen, 0)
        return int(chosen)

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over the group in its backward."""
        # Buffers (random features) follow from seed and step, alike in every process: nothing to send.
        return module if self.size == 1 else DistributedDataParallel(module, broadcast_buffers=False)

    def without_averaging(self, module: nn.Module) -> AbstractContextManager[Any]:
        """For all but the last part of a batch: gradients add up in each process, and are averaged once."""
        return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()


@contextmanager
def joined(rendezvous: Path, device: str) -> Iterator[Group]:
    """This process's place in the group that torchrun started; they find each other by a file.

    Nothing listens beyond the loopback address: gloo and NCCL are told to take that interface.
    """
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, "lo")
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
        init_method=rendezvous.as_uri(),
        rank=rank,
        world_size=size,
        # The others wait while the first scores. One that dies is not waited for: torchrun ends them all.
        timeout=timedelta(days=1),
    )
    try:
        yield Group(rank, size)
    finally:
        distributed.destroy_process_group()
