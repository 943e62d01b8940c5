"""A job is a folder: its spec, events, log, checkpoints, artifacts and result. Its state is a fold over its events."""

import json
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from engine.errors import Refused, Unknown
from engine.events import Event, EventLog
from engine.registry import Registry
from engine.run import Result, write_text
from engine.settings import settings


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
    attempts: int = 0  # starts that a person did not ask for count against the limit of the queue
    lost: int = 0
    pid: int = 0
    priority: int = 0
    executor: str = "process"
    parent: str = ""
    stage: str = ""
    done: float = 0.0
    total: float = 0.0
    reason: str = ""  # why it failed, or was lost
    metrics: dict[str, float] = field(default_factory=dict)  # the last value of each
    step: int = 0
    notes: list[str] = field(default_factory=list)

    def take(self, event: Event) -> None:
        """Fold one event into this status."""
        values = event.values
        if event.kind == "submitted":
            self.submitted = event.time
            self.priority, self.executor, self.parent = values["priority"], values["executor"], values["parent"]
        elif event.kind == "started":
            self.state, self.started, self.ended, self.pid = State.RUNNING, event.time, 0.0, values["pid"]
            self.attempts += 1
            self.reason = ""
        elif event.kind == "progress":
            self.done, self.total, self.stage = values["done"], values["total"], values["stage"]
        elif event.kind == "metric":
            self.step = values["step"]
            self.metrics.update({name: value for name, value in values.items() if name != "step"})
        elif event.kind == "note":
            self.notes.append(values["text"])
        elif event.kind in {"interrupted", "resumed"}:
            self.state, self.reason, self.ended = State.QUEUED, values.get("reason", ""), 0.0
            if event.kind == "resumed":
                self.lost = 0
        elif event.kind == "lost":
            self.state, self.reason = State.QUEUED, values["reason"]
            self.lost += 1
        elif event.kind in {"finished", "failed", "cancelled"}:
            self.state, self.ended, self.reason = State(event.kind), event.time, values.get("reason", "")

    @property
    def seconds_left(self) -> float | None:
        """Time left by the present stage's pace; None when nothing can be said."""
        spent = time.time() - self.started
        if self.state is not State.RUNNING or not self.done or not self.total:
            return None
        return max(0.0, spent * (self.total - self.done) / self.done)


class Job:
    """One job folder and every file name in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = folder.name
        self.spec_file = folder / "spec.json"
        self.log_file = folder / "log.txt"
        self.result_file = folder / "result.json"
        self.cancel_file = folder / "cancel"  # exists = someone asked it to stop
        self.alive_file = folder / "alive"  # touched every few seconds by the worker
        self.lock_file = folder / "lock"  # held by the worker as long as it lives
        self.checkpoints = folder / "checkpoints"
        self.events = EventLog(folder / "events.jsonl")
        self._status = Status()
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
            self._status.take(event)
        # A result that was written is a success, whatever happened to the worker after it.
        if self._status.state is not State.FINISHED and self.result_file.exists():
            self._status.state = State.FINISHED
            self._status.ended = self._status.ended or self.result_file.stat().st_mtime
        return self._status

    def result(self) -> Result:
        """The result of a finished job."""
        if not self.result_file.exists():
            raise Refused(f"Job {self.id} has no result: it is {self.status().state}.")
        return Result.read(self.result_file)

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
                handle.seek(max(0, self.log_file.stat().st_size - characters))
                return handle.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def cancel(self) -> None:
        """Ask the job to stop: at once when it waits, at its next step when it runs."""
        if not self.status().state.is_over:
            self.cancel_file.touch()

    def resume(self) -> None:
        """Put a cancelled or failed job back in the queue; it goes on from its checkpoint if it has one."""
        state = self.status().state
        if state not in {State.CANCELLED, State.FAILED}:
            raise Refused(f"Job {self.id} is {state}; only a cancelled or failed job can be resumed.")
        self.cancel_file.unlink(missing_ok=True)
        self.events.append("resumed")


class JobStore:
    """The jobs of a workspace."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or settings().jobs

    def submit(
        self, document: dict[str, Any], *, priority: int = 0, executor: str = "process", parent: str = "", id: str = ""
    ) -> Job:
        """Write a job folder; the queue finds it there. Submitting an id that exists gives the job that is there."""
        self.root.mkdir(parents=True, exist_ok=True)
        # Time first, so that the names sort by age; random last, so that two submissions never meet.
        id = id or f"{time.strftime('%y%m%d-%H%M%S')}-{document['run']}-{secrets.token_hex(2)}"
        folder = self.root / id
        if folder.exists():
            return Job(folder)
        beside = self.root / f".{id}.{secrets.token_hex(4)}.tmp"
        beside.mkdir()
        write_text(beside / "spec.json", json.dumps(document, ensure_ascii=False, indent=1))
        Job(beside).events.append("submitted", priority=priority, executor=executor, parent=parent)
        try:
            beside.rename(folder)
        except OSError:
            if not folder.exists():
                raise
            for file in beside.iterdir():
                file.unlink()
            beside.rmdir()
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
        """Start `command` (which works on the job's folder until it ends) and return at once, or when it is done."""

    @abstractmethod
    def stop(self, job: Job, *, force: bool) -> None:
        """Ask the worker to save and stop; with force, end it and everything it started."""

    @abstractmethod
    def alive(self, job: Job) -> bool:
        """Whether the job's worker still lives."""


EXECUTORS: Registry[Executor] = Registry(Executor, "engine.executors")  # type: ignore[type-abstract]
