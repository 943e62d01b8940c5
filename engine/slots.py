"""What runs share: GPUs, or a number of processes where there is none."""

import os
import shutil

from engine.job import State, Status
from engine.settings import settings


class Slots:
    """What runs share: a GPU each where there are GPUs, else a number of processes."""

    def __init__(self) -> None:
        self.gpus = gpus()
        self.total = len(self.gpus) or settings().cpu_slots
        self.given: dict[str, list[str]] = {}

    def free(self, used: list[Status]) -> int:
        return self.total - sum(min(status.slots, self.total) for status in used)

    def give(self, name: str, slots: int, used: list[Status]) -> list[str]:
        """What to put before a worker's command, so that it sees its own GPUs only."""
        if not self.gpus:
            return []
        # Those of this queue's own workers, and those that workers of an earlier queue say they have.
        taken = {gpu for gpus in self.given.values() for gpu in gpus}
        taken |= {gpu for status in used if status.state is State.RUNNING for gpu in status.gpu.split(",")}
        self.given[name] = [gpu for gpu in self.gpus if gpu not in taken][:slots]
        return ["env", f"CUDA_VISIBLE_DEVICES={','.join(self.given[name])}", *(["AUSCULT_DEVICE=cuda"] if slots else [])]


def gpus() -> list[str]:
    device = settings().device
    if device == "cpu" or shutil.which("nvidia-smi") is None:
        return []
    import torch  # only where there may be GPUs: it takes a second and 200 MB

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
    names = names[: torch.cuda.device_count()]
    return names[int(device[5:]) :][:1] if device.startswith("cuda:") else names
