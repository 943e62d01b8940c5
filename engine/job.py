"""A job is a folder: its spec, events, log, checkpoints, artifacts and result. Its state is a fold over its events.

Whoever changes a job's state holds its lock file while it does: the worker for its whole life, the queue and a person's
cancel for a moment. The kernel frees the lock when its holder dies, so "does the worker live" needs no process numbers.
"""

import fcntl
import json
import os
import secrets
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from engine.errors import Refused, Unknown
from engine.events import Event, EventLog
from engine.registry import Registry
from engine.run import PARTIAL, Result, flush_folder, write_text
from engine.settings import settings

INLINE = "inline"  # the executor of jobs that their submitter works on itself; the queue never starts them


class State(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        return self in {State.FINISHED, State.FAILED, State.CANCELLED}


@dataclass
class Status:
    """What the events of a job add up to."""

    state: State = State.QUEUED
    submitted: float = 0.0
    started: float = 0.0  # of the present attempt
    ended: float = 0.0
    resumed: float = 0.0  # when a person last put it back in the queue
    attempts: int = 0
    lost: int = 0  # attempts that ended without a word, since a person last asked for one
    pid: int = 0
    host: str = ""
    gpu: str = ""  # which GPUs the queue gave it, as CUDA_VISIBLE_DEVICES writes them
    priority: int = 0  # higher goes first
    slots: int = 1
    executor: str = "process"
    parent: str = ""
    watched: str = ""  # the job that it watches: while that one runs, it waits for no slot
    own_code: bool = False  # submitted from a command line, so what `python:` names may be imported for it
    stage: str = ""
    done: float = 0.0
    total: float = 0.0
    reason: str = ""  # why it failed, was cancelled or was lost
    metrics: dict[str, float] = field(default_factory=dict)  # the last value of each
    step: int = 0
    notes: list[str] = field(default_factory=list)
    stage_started: float = 0.0
    stage_base: float = 0.0  # what was done already when the stage began, such as the steps before a resume

    def take(self, event: Event) -> None:
        """Fold one event into this status. What is over stays over until a person resumes it."""
        values = event.values
        match event.kind:
            case "submitted":
                self.submitted = event.time
                self.priority, self.slots = int(values.get("priority", 0)), int(values.get("slots", 1))
                self.executor, self.parent = str(values.get("executor", "process")), str(values.get("parent", ""))
                self.watched = str(values.get("watched", ""))
                self.own_code = values.get("own_code") is True
            case "progress":
                self._take_progress(event)
            case "metric" | "pace":
                self.step = int(values.get("step", 0))
                self.metrics.update({name: value for name, value in values.items() if name != "step"})
            case "note":
                self.notes.append(str(values.get("text", "")))
            case "resumed":
                self.state, self.reason, self.ended, self.lost = State.QUEUED, "", 0.0, 0
                self.resumed, self.executor = event.time, str(values.get("executor", self.executor))
            case "finished":
                self.state, self.ended, self.reason = State.FINISHED, event.time, ""
            case _ if self.state.is_over:
                pass
            case "started":
                self.state, self.started, self.ended, self.reason = State.RUNNING, event.time, 0.0, ""
                self.pid, self.host = int(values.get("pid", 0)), str(values.get("host", ""))
                self.gpu, self.stage = str(values.get("gpu", "")), ""
                self.attempts += 1
            case "interrupted":
                self.state, self.reason = State.QUEUED, str(values.get("reason", ""))
            case "lost":
                self.state, self.reason = State.QUEUED, str(values.get("reason", ""))
                self.lost += 1
            case "failed" | "cancelled":
                self.state, self.ended, self.reason = State(event.kind), event.time, str(values.get("reason", ""))
            case _:
                pass

    def _take_progress(self, event: Event) -> None:
        stage, done = str(event.values.get("stage", "")), float(event.values.get("done", 0.0))
        if stage != self.stage or done < self.done:
            self.stage_started, self.stage_base = event.time, done
        self.stage, self.done, self.total = stage, done, float(event.values.get("total", 0.0))

    @property
    def seconds_left(self) -> float | None:
        """Time left by the present stage's pace; None when nothing can be said."""
        gained = self.done - self.stage_base
        if self.state is not State.RUNNING or gained <= 0:
            return None
        return max(0.0, (time.time() - self.stage_started) * (self.total - self.done) / gained)


@contextmanager
def hold(file: Path, seconds: float = 0.0) -> Iterator[bool]:
    """Hold the lock of `file` inside the block; False where someone else has it and keeps it for `seconds`."""
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield _take_lock(handle, seconds)
    finally:
        os.close(handle)


def is_held(file: Path) -> bool:
    """Whether someone holds the lock of `file`."""
    try:
        handle = os.open(file, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not _take_lock(handle, 0.0)
    finally:
        os.close(handle)


def _take_lock(handle: int, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.02)


class Job:
    """One job folder and every file name in it. An object is for one thread; make another for another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = folder.name
        self.spec_file = folder / "spec.json"
        self.log_file = folder / "log.txt"
        self.result_file = folder / "result.json"
        self.partial_file = folder / PARTIAL  # what a run that goes on has found so far
        self.cancel_file = folder / "cancel"  # exists = someone asked it to stop
        self.alive_file = folder / "alive"  # touched every few seconds by the worker
        self.lock_file = folder / "lock"  # held by the worker as long as it lives
        self.checkpoints = folder / "checkpoints"
        self.events = EventLog(folder / "events.jsonl")
        self._fold = Status()
        self._offset = 0

    @property
    def document(self) -> dict[str, Any]:
        """The spec as it was submitted."""
        document: dict[str, Any] = json.loads(self.spec_file.read_text("utf-8"))
        return document

    def status(self) -> Status:
        """The state now; reads only what is new since the last call on this object."""
        events, self._offset = self.events.read(self._offset)
        for event in events:
            self._fold.take(event)
        # A result that was written is a success, whatever happened to the worker after it.
        if self._fold.state is not State.FINISHED and self.result_file.exists():
            ended = self._fold.ended or self.result_file.stat().st_mtime
            return replace(self._fold, state=State.FINISHED, ended=ended, reason="")
        return self._fold

    def conclude(self) -> bool:
        """Whether there is a result; records `finished` where that is missing. The caller holds the lock."""
        if self.status().state is not State.FINISHED:
            return False
        if self._fold.state is not State.FINISHED:
            self.events.append("finished")
        return True

    def result(self) -> Result:
        """The result of a finished job."""
        if not self.result_file.exists():
            raise Refused(f"Job {self.id} has no result: it is {self.status().state}.")
        return Result.read(self.result_file)

    def so_far(self) -> Result:
        """The result, or what a run that has not ended well has found so far."""
        if not self.result_file.exists() and self.partial_file.exists():
            return Result.read(self.partial_file)
        return self.result()

    def hold(self, seconds: float = 0.0) -> AbstractContextManager[bool]:
        """Hold this job's lock inside the block; False where someone else keeps it for `seconds`."""
        return hold(self.lock_file, seconds)

    @property
    def held(self) -> bool:
        """Whether a worker lives that works on this job."""
        return is_held(self.lock_file)

    def heartbeat(self) -> float | None:
        """Seconds since the worker last gave a sign of life."""
        try:
            return max(0.0, time.time() - self.alive_file.stat().st_mtime)
        except FileNotFoundError:
            return None

    def log(self, characters: int = 64_000) -> str:
        """The end of the log."""
        try:
            with self.log_file.open("rb") as handle:
                handle.seek(max(0, os.fstat(handle.fileno()).st_size - characters))
                return handle.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def cancel(self) -> None:
        """Ask the job and its children to stop: at once when they wait, at their next step when they run."""
        if not self.status().state.is_over:
            self.cancel_file.touch()
            with self.hold() as held:
                if held and self.status().state is State.QUEUED:
                    self.events.append("cancelled")
        self.cancel_children()

    def cancel_children(self) -> None:
        """Cancel every job that this one started and that is not over."""
        for folder in self.folder.parent.glob(f"{self.id}.*"):
            child = Job(folder)
            if child.status().parent == self.id:
                child.cancel()

    def resume(self) -> None:
        """Put a cancelled or failed job back in the queue; it goes on from its checkpoint if it has one."""
        status = self.status()
        if status.state not in {State.CANCELLED, State.FAILED}:
            raise Refused(f"Job {self.id} is {status.state}; only a cancelled or failed job can be resumed.")
        self.cancel_file.unlink(missing_ok=True)
        # The terminal that an inline job ran in is gone.
        self.events.append("resumed", executor="process" if status.executor == INLINE else status.executor)


class JobStore:
    """The jobs of a workspace."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = (root or settings().jobs).absolute()

    def submit(
        self,
        document: dict[str, Any],
        *,
        priority: int = 0,
        executor: str = "process",
        parent: str = "",
        watched: str = "",
        id: str = "",
        slots: int = 1,
    ) -> Job:
        """Write a job folder; the queue finds it there. Submitting an id that exists gives the job that is there."""
        if not str(document.get("run") or "").isidentifier():
            raise Refused("A job needs a document whose 'run' is the name of a run.")
        self.root.mkdir(parents=True, exist_ok=True)
        # Time first, so that the names sort by age; random last, so that two submissions never meet.
        id = id or f"{time.strftime('%y%m%d-%H%M%S')}-{document['run']}-{secrets.token_hex(2)}"
        folder = self.root / id
        if folder.exists():
            return Job(folder)
        beside = self.root / f".{id}.{secrets.token_hex(3)}.{os.getpid()}.tmp"
        beside.mkdir()
        try:
            write_text(beside / "spec.json", json.dumps(document, ensure_ascii=False, indent=1))
            about = {"priority": priority, "executor": executor, "parent": parent, "watched": watched, "slots": slots}
            Job(beside).events.append("submitted", **about, own_code=settings().own_code)
            beside.rename(folder)
        except OSError:
            shutil.rmtree(beside, ignore_errors=True)
            if not folder.exists():
                raise
        flush_folder(self.root)
        return Job(folder)

    def get(self, id: str) -> Job:
        """The job of that id, or of the only id that begins so."""
        exact = self.root / id
        if id and "/" not in id and not id.startswith(".") and (exact / "spec.json").exists():
            return Job(exact)
        ids = [job.id for job in self]
        near = [known for known in ids if id and known.startswith(id)]
        if len(near) == 1:
            return Job(self.root / near[0])
        raise Unknown("job", id, ids[-12:])

    def __iter__(self) -> Iterator[Job]:
        """Every job, oldest first."""
        if self.root.exists():
            for folder in sorted(self.root.iterdir()):
                if not folder.name.startswith(".") and (folder / "spec.json").exists():
                    yield Job(folder)


class Executor(ABC):
    """A place where jobs run. The file's stem is its name."""

    name: ClassVar[str]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.name = cls.__module__.rsplit(".", 1)[-1]

    @classmethod
    @abstractmethod
    def affinity(cls) -> int:
        """-1 it cannot run here, 0 only when asked for by name, 1 it can, 2 it is made for this machine."""

    @abstractmethod
    def start(self, job: Job, command: list[str]) -> None:
        """Start `command`, which works on the folder until it ends. The queue sees to nothing else until this returns."""

    @abstractmethod
    def stop(self, job: Job, *, force: bool) -> None:
        """Ask the worker to save and stop; with force, end it and everything it started."""

    @abstractmethod
    def alive(self, job: Job) -> bool:
        """Whether the job's worker still lives."""

    def cause(self, job: Job) -> str:
        """How the job's worker ended ("killed by SIGKILL"), where that is known."""
        return ""


EXECUTORS: Registry[Executor] = Registry(Executor, "engine.executors")  # type: ignore[type-abstract]
