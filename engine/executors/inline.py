"""Runs a job in this process; what a terminal that waits for the result uses."""

from engine.job import Executor, Job
from engine.worker import Resolve, work


class Inline(Executor):
    """Works on the job itself and returns when it is over. The queue never starts such a job."""

    def __init__(self, resolve: Resolve) -> None:
        self.resolve = resolve

    @classmethod
    def affinity(cls) -> int:
        return 0

    def start(self, job: Job, command: list[str]) -> None:
        work(job, self.resolve)

    def stop(self, job: Job, *, force: bool) -> None:
        job.cancel_file.touch()  # a thread cannot be ended from outside

    def alive(self, job: Job) -> bool:
        return job.held
