"""Memory: whether it ran out, and how much is in use."""

import psutil
import torch


def ran_out(error: BaseException) -> bool:
    """Whether this says that memory ran out, on a GPU or here."""
    said = str(error).lower()
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "out of memory" in said
        or "can't allocate memory" in said
        or "not enough memory" in said
    )


def held(device: torch.device) -> dict[str, float]:
    """Gigabytes that this process holds now, and the most that it held on the GPU where it computes there."""
    found = {"memory_gb": psutil.Process().memory_info().rss / 2**30}
    if device.type == "cuda":
        found["gpu_memory_gb"] = torch.cuda.max_memory_allocated(device) / 2**30
    return found
