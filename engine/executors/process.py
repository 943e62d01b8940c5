"""Runs a job as a child process on this machine."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil

from engine.job import Executor, Job, State
from engine.settings import HOUSE

# Everything that a worker starts inherits this variable, however it detaches itself: it tells whose it is.
MARK = "AUSCULT_JOB"
_NICENESS = 5  # the pages stay quick beside running jobs


class Process(Executor):
    """A child in a session of its own. It outlives the queue, and the next queue finds it through the job's lock."""

    def __init__(self) -> None:
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    @classmethod
    def affinity(cls) -> int:
        return 1

    def start(self, job: Job, command: list[str]) -> None:
        with job.log_file.open("ab") as log:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=HOUSE,
                env={**os.environ, MARK: str(job.folder), "PYTHONUNBUFFERED": "1"},
            )
        self._children[job.id] = child
        os.setpriority(os.PRIO_PROCESS, child.pid, _NICENESS)

    def stop(self, job: Job, *, force: bool) -> None:
        if force:
            for process in _members(job.folder):
                _send(process, signal.SIGKILL)
            return
        child = self._children.get(job.id)
        pid = child.pid if child is not None else job.status().pid
        for process in _members(job.folder):
            if process.pid == pid:
                _send(process, signal.SIGTERM)

    def alive(self, job: Job) -> bool:
        child = self._children.get(job.id)
        if child is not None and child.poll() is None:
            return True
        if not job.held:
            return False
        status = job.status()
        if status.state is not State.QUEUED and not _is_member(status.pid, job.folder):
            # What it forked has inherited the lock, and may wait for ever for a parent that is gone.
            self.stop(job, force=True)
        return True

    def cause(self, job: Job) -> str:
        child = self._children.get(job.id)
        code = child.poll() if child is not None else None
        if code is None:
            return ""
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _members(folder: Path) -> Iterator[psutil.Process]:
    return (process for process in psutil.process_iter() if _has_mark(process, folder))


def _is_member(pid: int, folder: Path) -> bool:
    try:
        return _has_mark(psutil.Process(pid), folder)
    except (psutil.NoSuchProcess, ValueError):
        return False


def _has_mark(process: psutil.Process, folder: Path) -> bool:
    try:
        return bool(process.environ().get(MARK) == str(folder))
    except (psutil.Error, OSError):
        return False  # gone meanwhile, or another user's


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
