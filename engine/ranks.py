"""Processes that share one training. torchrun starts them and tells each its rank; the first one decides for all."""

import gc
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def rank() -> int:
    """Which of them this is; the first is 0."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """How many there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local() -> int:
    """Which of those on this machine this is: its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def sums(numbers: Sequence[float], device: "torch.device") -> list[float]:
    """Each number added up over all processes; every one of them must ask at the same place."""
    if world() == 1:
        return list(numbers)
    import torch

    held = torch.tensor(numbers, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(held)
    return held.tolist()


def leave() -> None:
    """Wait for the others, then let go of them. What talks to them must be gone first: gloo aborts a process otherwise."""
    import torch

    if world() > 1 and torch.distributed.is_initialized():
        torch.distributed.barrier()
        gc.collect()
        torch.distributed.destroy_process_group()
