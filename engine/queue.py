"""Starts jobs when slots are free. All it knows is in the job folders: killed at any moment, the next one goes on.

One queue serves a workspace. It reads events by offset, holds a job's lock while it writes that job's end, and asks the
job's executor, never an exit code, whether a worker lives.
"""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import Refused, explain
from engine.job import EXECUTORS, INLINE, Executor, Job, JobStore, State, Status, hold, is_held
from engine.settings import HOUSE
from engine.slots import Slots
from engine.sweep import sweep

log = logging.getLogger("auscult.queue")

_TICK_SECONDS = 0.2
_GRACE_SECONDS = 10.0  # from being asked to stop to being killed
_DEATH_SECONDS = 3.0  # from being killed to being gone
_EXIT_SECONDS = 30.0  # a worker whose job is over may still tidy up so long
_SILENT_SECONDS = 60.0
_LOST_LIMIT = 3  # a job that has lost more workers than this is taken for what kills them
IDLE_SECONDS = 600.0  # a queue whose server was killed leaves by itself
_LOOK_AGAIN_SECONDS = 1.0  # at jobs that ended badly: a person may resume them


def serve(
    store: JobStore, command: list[str], *, stop: threading.Event | None = None, idle_seconds: float | None = None
) -> None:
    """Serve the jobs of `store` until `stop` is set, SIGTERM comes, or nothing was there to do for `idle_seconds`.

    `command` is what the workers are verbs of: `[*command, "worker", FOLDER]` works on one folder.
    """
    stop = stop or threading.Event()
    with _stopped_by_signal(stop):
        while _serve(store, command, stop, idle_seconds):
            pass


def _serve(store: JobStore, command: list[str], stop: threading.Event, idle_seconds: float | None) -> bool:
    file = _lock_file(store)
    with hold(file, 1.0) as held:
        if not held:
            raise Refused(f"A queue already serves this workspace ({file.read_text().strip() or 'just started'}).")
        file.write_text(f"process {os.getpid()}\n")
        queue = _Queue(store, command)
        sweep(store.root.parent)
        busy = time.monotonic()
        while not stop.is_set():
            if queue.tick():
                busy = time.monotonic()
            if idle_seconds is not None and time.monotonic() - busy > idle_seconds:
                break
            stop.wait(_TICK_SECONDS)
        else:
            queue.interrupt()
            return False
    # Whoever submitted a job before the lock was free has seen a living queue and relies on it.
    return any(not job.status().state.is_over for job in store if job.id not in queue.over)


def ensure(command: list[str]) -> None:
    """Start a queue for this workspace where none runs; it leaves when it was idle for a while."""
    store = JobStore()
    for queue in list(_detached):
        if queue.poll() is not None:
            _detached.remove(queue)
    if is_held(_lock_file(store)):
        return
    with (store.root.parent / "queue.log").open("ab") as output:
        _detached.append(
            subprocess.Popen(
                [*command, "queue"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=HOUSE,
            )
        )


_detached: list[subprocess.Popen[bytes]] = []  # kept, so that they are reaped


def _lock_file(store: JobStore) -> Path:
    store.root.mkdir(parents=True, exist_ok=True)
    return store.root / ".queue"


class _Queue:
    """One queue's memory; all of it can be read again from the folders."""

    def __init__(self, store: JobStore, command: list[str]) -> None:
        self.store = store
        self.command = command
        self.slots = Slots()
        self.open: dict[str, Job] = {}
        self.over: dict[str, Job | None] = {}  # those that a person may resume, with what was read of them
        self.executors: dict[str, Executor] = {}
        self.started: dict[str, int] = {}  # job -> its attempts before this queue started a worker for it
        self.asked: dict[str, float] = {}  # job -> when its worker was asked to stop
        self.ended: dict[str, float] = {}  # job -> when it was first seen over with a living worker
        self.silent: set[str] = set()
        self.trouble: dict[str, str] = {}  # job -> what was last said about it
        self.looked = 0.0

    def tick(self) -> bool:
        """Look at every job once; start what can start. Whether there was anything to do."""
        self._find()
        for job in list(self.open.values()):
            with self._one_job_fails_alone(job):
                self._look(job)
        self._begin()
        return bool(self.open)

    def interrupt(self) -> None:
        """Ask all workers to save and stop; the next queue goes on with them."""
        running = [job for job in self.open.values() if self._executor(job) and self._alive(job)]
        for force, seconds in ((False, _GRACE_SECONDS), (True, _DEATH_SECONDS)):
            for job in running:
                self._executor_of(job).stop(job, force=force)
            until = time.monotonic() + seconds
            while time.monotonic() < until and [job for job in running if self._alive(job)]:
                time.sleep(0.05)
        for job in running:
            with job.hold() as held:
                if held and not job.conclude() and job.status().state is State.RUNNING:
                    kind = "cancelled" if job.cancel_file.exists() else "interrupted"
                    job.events.append(kind, reason="The queue was stopped and the run did not stop by itself.")

    def _find(self) -> None:
        with os.scandir(self.store.root) as entries:
            new = sorted(
                entry.name
                for entry in entries
                if entry.name not in self.open and entry.name not in self.over and not entry.name.startswith(".")
            )
        for name in new:
            job = Job(self.store.root / name)
            if _is_settled(job):
                self.over[name] = None
            elif job.spec_file.exists():
                self.open[name] = job
        if time.monotonic() - self.looked > _LOOK_AGAIN_SECONDS:
            self.looked = time.monotonic()
            for name, known in list(self.over.items()):
                if known is not None and not known.status().state.is_over:
                    del self.over[name]
                    self.open[name] = known

    def _look(self, job: Job) -> None:
        status = job.status()
        if status.state.is_over:
            self._close(job, status)
        elif status.executor == INLINE:
            self._look_inline(job, status)
        elif not self._executor(job):
            with job.hold() as held:
                if held:
                    job.events.append("failed", reason=f"There is no executor called '{status.executor}' here.")
        elif status.state is State.QUEUED and job.id not in self.started:
            if job.cancel_file.exists():
                self._settle(job, "")
        elif not self._alive(job):
            never_began = status.state is State.QUEUED and self.started.get(job.id) == status.attempts
            if status.state is State.RUNNING or never_began or job.cancel_file.exists():
                self._settle(job, self._obituary(job))
            self._let_go(job)
        elif job.cancel_file.exists():
            self._press(job)
        elif status.state is State.RUNNING:
            self._listen(job, status)

    def _look_inline(self, job: Job, status: Status) -> None:
        # Its submitter works on it. A child waits as long as its parent works.
        if job.held or (status.parent and Job(self.store.root / status.parent).held):
            return
        if status.state is State.RUNNING:
            self._settle(job, "The terminal or program that ran it ended.", limit=-1)
        elif time.time() - status.submitted > _SILENT_SECONDS:
            self._settle(job, "The terminal or program that was to run it never began.", limit=-1)

    def _close(self, job: Job, status: Status) -> None:
        # The job is over; its worker may need a moment to leave, and holds its slot until then.
        if status.executor != INLINE and self._executor(job) and self._alive(job):
            since = self.ended.setdefault(job.id, time.monotonic())
            if time.monotonic() - since > _EXIT_SECONDS:
                self._executor_of(job).stop(job, force=True)
            return
        with job.hold() as held:
            if held:
                job.conclude()
                sweep(job.folder, seconds=0.0)
        del self.open[job.id]
        self.over[job.id] = None if status.state is State.FINISHED else job
        self._let_go(job)

    def _settle(self, job: Job, reason: str, limit: int = _LOST_LIMIT) -> None:
        """Write what became of a job whose worker is gone. Nothing is written while anyone holds its lock."""
        with job.hold() as held:
            if not held:
                return
            status = job.status()
            if job.conclude() or status.state.is_over:
                return
            sweep(job.folder, seconds=0.0)
            if job.cancel_file.exists():
                job.events.append("cancelled")
            elif status.lost >= limit:
                times = f" It was tried {status.lost + 1} times." if limit > 0 else ""
                job.events.append("failed", reason=reason + times)
            else:
                job.events.append("lost", reason=reason)
            log.info("%s: %s", job.id, reason or "cancelled")

    def _obituary(self, job: Job) -> str:
        cause = self._executor_of(job).cause(job)
        lines = job.log(16_000).strip().splitlines()
        # A crash in native code ends with a long dump; its head says what happened.
        told = [line for line in lines if line.startswith("Fatal Python error")] or lines
        last = f" The last line of its log: {told[-1][:200]}" if told else ""
        return f"Its worker ended without a result{f' ({cause})' if cause else ''}.{last}"

    def _press(self, job: Job) -> None:
        """Ask a worker to stop, and kill it when it had its time."""
        if job.id not in self.asked:
            self.asked[job.id] = time.monotonic()
            self._executor_of(job).stop(job, force=False)
        elif time.monotonic() - self.asked[job.id] > _GRACE_SECONDS:
            self._executor_of(job).stop(job, force=True)

    def _listen(self, job: Job, status: Status) -> None:
        # A worker in one long call outside Python cannot give signs of life: it is noted, not killed.
        if (
            job.id not in self.silent
            and (job.heartbeat() or 0.0) > _SILENT_SECONDS
            and time.time() - status.started > _SILENT_SECONDS
        ):
            self.silent.add(job.id)
            job.events.append("note", text=f"No sign of life for {_SILENT_SECONDS:.0f} seconds; its process still exists.")

    def _begin(self) -> None:
        """Start what can start: by priority, then by age. One that needs more slots than are free holds back the rest."""
        waiting, used = [], []
        for job in self.open.values():
            status = job.status()
            if status.executor == INLINE:
                continue
            if status.state is not State.QUEUED or job.id in self.started:
                used.append(status)
            else:
                waiting.append((-status.priority, status.submitted, job.id))
        free = self.slots.free(used)
        for _, _, name in sorted(waiting):
            status = self.open[name].status()
            slots = min(status.slots, self.slots.total)
            watched = self.open.get(status.watched)
            if slots > free and watched and watched.status().state is State.RUNNING:
                slots = 0  # on the processor, where GPUs are what is shared
            if slots and slots > free:
                free = 0
                continue
            with self._one_job_fails_alone(self.open[name]):
                self._start(self.open[name], slots, used)
                free -= slots

    def _start(self, job: Job, slots: int, used: list[Status]) -> None:
        if job.held or not self._executor(job):
            return  # a worker that an earlier queue started is about to say so
        self.started[job.id] = job.status().attempts
        command = [*self.slots.give(job.id, slots, used), *self.command, "worker", str(job.folder)]
        log.info("%s starts", job.id)
        try:
            self._executor_of(job).start(job, command)
        except Exception as error:
            self._settle(job, explain(error))
            self._let_go(job)

    def _let_go(self, job: Job) -> None:
        """Forget a worker that is gone, and end whatever it left running."""
        began = job.id in self.started or job.status().attempts > 0
        for memory in (self.started, self.asked, self.ended, self.slots.given):
            memory.pop(job.id, None)
        self.silent.discard(job.id)
        if began and self._executor(job):
            self._executor_of(job).stop(job, force=True)

    def _executor(self, job: Job) -> bool:
        name = job.status().executor
        if name not in self.executors and name in (classes := EXECUTORS.classes()) and name != INLINE:
            self.executors[name] = classes[name]()
        return name in self.executors

    def _executor_of(self, job: Job) -> Executor:
        return self.executors[job.status().executor]

    def _alive(self, job: Job) -> bool:
        return self._executor_of(job).alive(job)

    @contextmanager
    def _one_job_fails_alone(self, job: Job) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            if job.folder.exists():
                raise
            self.open.pop(job.id, None)  # its folder was deleted
            self.started.pop(job.id, None)
        except Exception as error:  # a full disk, or an executor of the user's own that breaks
            if self.trouble.get(job.id) != repr(error):
                self.trouble[job.id] = repr(error)
                log.exception("%s cannot be looked after; trying on", job.id)


def _is_settled(job: Job) -> bool:
    """Whether a job has finished and says so at the end of its events, seen without reading them all."""
    try:
        if not job.result_file.exists():
            return False
        with job.events.file.open("rb") as handle:
            handle.seek(max(0, os.fstat(handle.fileno()).st_size - 2_000))
            return b'"kind": "finished"' in handle.read()
    except FileNotFoundError:
        return False


@contextmanager
def _stopped_by_signal(stop: threading.Event) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
