"""Runs one job as several processes: torchrun starts them, the first is the job's worker, the others follow it.

The folder of the job still tells everything: only the first process writes it, and what this one adds is why it ended
where the first could not say so.
"""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from engine import ranks
from engine.errors import Interrupted, explain
from engine.job import Job
from engine.run import Context, Result, RunSpec, Stop

GRACE = 20.0  # seconds in which the others end once the first has

log = logging.getLogger("auscult")


class Follower(Context):
    """What a run is given in a process that is not the first: it reads the job's folder and leaves nothing there."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        super().__init__(folder)
        self.scratch = scratch

    def progress(self, done: float, total: float, stage: str) -> None:
        pass

    def metric(self, step: int, **values: float) -> None:
        pass

    def pace(self, step: int, **values: float) -> None:
        pass

    def note(self, sentence: str) -> None:
        pass

    def partial(self, result: Result) -> None:
        pass

    def artifact(self, name: str) -> Path:
        file = self.scratch / name
        file.parent.mkdir(parents=True, exist_ok=True)
        return file


def follow(job: Job, spec: RunSpec) -> int:
    """Do what the first process does, beside it. It decides when to stop, so signals are left to it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            spec.run(Follower(job.folder, Path(scratch)))
        ranks.leave()
    except Interrupted:
        ranks.leave()
    except Exception as error:
        _note(job).write_text(explain(error), "utf-8")
        log.error("Process %d failed.\n%s", ranks.rank() + 1, "".join(traceback.format_exception(error)))
        return 1
    return 0


def launch(job: Job, processes: int, command: Sequence[str], asked: Stop) -> None:
    """Start the processes and wait until they have ended."""
    for stale in job.folder.glob("process-*.failed"):
        stale.unlink()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--no-python"]
    threads = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes))}
    child = subprocess.Popen(
        [*torchrun, f"--nproc-per-node={processes}", *command, "worker", str(job.folder)], env={**os.environ, **threads}
    )
    began, told, over = job.status().attempts, False, 0.0
    while child.poll() is None:
        if not told and _has(asked):
            told = _tell(job, child)
        # Where the first has ended without the others, they wait for it until they are ended.
        idle = job.status().attempts > began and not job.held
        over = (over or time.monotonic()) if idle else 0.0
        if over and time.monotonic() - over > GRACE:
            child.kill()
        time.sleep(0.2)
    failed = sorted(job.folder.glob("process-*.failed"))
    if failed and not job.result_file.exists():
        number = failed[0].stem.removeprefix("process-")
        job.events.append("failed", reason=f"Process {number} of {processes}: {failed[0].read_text('utf-8')}")


def _tell(job: Job, child: "subprocess.Popen[bytes]") -> bool:
    """Ask the first process to save and stop; torchrun only where there is none yet."""
    pid = job.status().pid if job.held else child.pid
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return False
    return True


def _has(asked: Callable[[], None]) -> bool:
    try:
        asked()
    except Interrupted:
        return True
    return False


def _note(job: Job) -> Path:
    return job.folder / f"process-{ranks.rank() + 1}.failed"
