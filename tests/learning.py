"""Pretexts that learn for some steps, and batches made by hand."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from app import workbench
from engine.job import Job, JobStore
from engine.pretext import Batch
from engine.run import Context, Result

SHORT = {"corpus": "spoken:digits?voices=4", "batch_seconds": 6, "rate": 0.003, "checkpoint_every": 1000}


# A Mockingjay that takes no time.
TINY = {
    "run": "mockingjay",
    "corpus": "spoken:digits?voices=4",
    "features": "mel",
    "batch_seconds": 6,
    "rate": 0.003,
    "reduce": 2,
    "blocks": 1,
    "width": 16,
    "heads": 2,
    "inner": 32,
}


def learnt(run: str, **settings: Any) -> tuple[Job, Result]:
    """What a pretext has learnt in a few steps, as a finished job."""
    job = JobStore().submit(workbench.resolve({"run": run, **SHORT, **settings}).document)
    result = workbench.resolve(job.document).run(Context(job.folder, device="cpu"))
    result.save(job.result_file)
    return job, result


def batch(*clips: Tensor | Sequence[Tensor], first: int = 0) -> Batch:
    """Prepared clips with the numbers that follow from `first`."""
    parts = [(clip,) if isinstance(clip, Tensor) else tuple(clip) for clip in clips]
    numbers = list(range(first, first + len(clips)))
    return Batch(parts, numbers, [100 + number for number in numbers])
