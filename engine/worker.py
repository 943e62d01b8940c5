"""Runs one job folder to its end. Whatever happens to this process, the folder tells the queue how to go on.

Its exit codes are for people and shells; the queue reads the folder, because a finished run can still end with a signal
(gloo's threads abort at exit now and then).
"""

import faulthandler
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from engine import ranks
from engine.errors import AuscultError, Cancelled, Interrupted, Refused, explain
from engine.facts import carry_out
from engine.job import INLINE, Job, JobStore, State
from engine.run import Context, Result, RunSpec, Stop
from engine.training import together

FINISHED = 0
FAILED = 1
BUSY = 73  # another process works on this job
INTERRUPTED = 75  # to be gone on with: sysexits calls it a temporary failure
CANCELLED = 130  # what shells say after Ctrl-C

_CODES = {State.FINISHED: FINISHED, State.FAILED: FAILED, State.CANCELLED: CANCELLED, State.QUEUED: INTERRUPTED}
_LOCK_SECONDS = 5.0  # a queue that looks at the lock holds it for an instant
_BEAT_SECONDS = 2.0
_LOG_BYTES = 10_000_000  # of log.txt; when it is full it becomes log.1.txt

Resolve = Callable[[dict[str, Any]], RunSpec]

log = logging.getLogger("auscult")


def work(job: Job, resolve: Resolve, command: Sequence[str] = ()) -> int:
    """Run this job to its end and return an exit code. Called on a job that is over, it changes nothing.

    In the main thread, SIGTERM and a first Ctrl-C ask the run to save and stop; a second Ctrl-C kills. A job of several
    processes is started as such by `command`, the program that knows the verb `worker`.
    """
    with _logging(job):
        if ranks.rank():
            return together.follow(job, resolve(job.document))
        with _signals() as asked:
            processes = int(job.document.get("processes", 1))
            if processes > 1 and ranks.world() == 1 and command and not job.status().state.is_over:
                together.launch(job, processes, command, asked)
                return _CODES.get(job.status().state, FAILED)
            code = _work(job, resolve, asked)
    # What torchrun starts ends well whatever came of the job: the folder tells, and torchrun would only shout.
    return code if ranks.world() == 1 else FINISHED


def _work(job: Job, resolve: Resolve, asked: Stop) -> int:
    with job.hold(_LOCK_SECONDS) as held:
        if not held:
            return BUSY
        if job.conclude() or job.status().state.is_over:
            return _CODES[job.status().state]
        if job.status().state is State.RUNNING:
            job.events.append("lost", reason="The worker before this one ended without a word.")
        if job.cancel_file.exists():
            job.events.append("cancelled")
            return CANCELLED
        with _heartbeat(job):
            job.events.append(
                "started",
                pid=os.getpid(),
                host=socket.gethostname(),
                gpu=os.environ.get("CUDA_VISIBLE_DEVICES", ""),
                attempt=job.status().attempts + 1,
            )
            _attempt(job, resolve, asked)
        return _CODES[job.status().state]


def _attempt(job: Job, resolve: Resolve, asked: Stop) -> None:
    children = _Children(job, resolve)
    ctx = Context(job.folder, stop=_stop(job, asked), submit=children.run)
    children.ctx = ctx
    try:
        result = carry_out(resolve(job.document), ctx, attempt=job.status().attempts)
        ranks.leave()
        result.save(job.result_file)
    except (Cancelled, KeyboardInterrupt):
        job.cancel_children()
        job.events.append("cancelled")
    except Interrupted as error:
        if job.status().executor == INLINE:  # nobody would go on with it
            job.events.append("cancelled", reason="It was stopped where it was started.")
        else:
            job.events.append("interrupted", reason=str(error))
    except (Exception, SystemExit) as error:
        _record(error, job)
        job.events.append("failed", reason=explain(error))
    else:
        job.conclude()


def _record(error: BaseException, job: Job) -> None:
    """Log why a job failed. Pages show the log: what only a programmer reads goes to a file beside it."""
    if isinstance(error, AuscultError):
        log.warning("%s failed: %s", job.id, error)
        return
    file = job.folder / "traceback.txt"
    file.write_text("".join(traceback.format_exception(error)), "utf-8")
    log.error("%s failed unexpectedly (%s). Where in the program it happened is in %s.", job.id, type(error).__name__, file)


def _stop(job: Job, asked: Stop) -> Stop:
    looked = 0.0
    cancelled = False

    def stop() -> None:
        nonlocal looked, cancelled
        now = time.monotonic()
        if now - looked > 0.2:  # a run may ask at every batch
            looked, cancelled = now, cancelled or job.cancel_file.exists()
        if cancelled:
            raise Cancelled("This run was cancelled.")
        try:
            asked()
        except Interrupted:
            # The queue sends SIGTERM for both; the file tells which it means.
            if job.cancel_file.exists():
                raise Cancelled("This run was cancelled.") from None
            raise

    return stop


class _Children:
    """Runs other specs for a suite: as jobs of the queue, or one after the other in this process."""

    def __init__(self, job: Job, resolve: Resolve) -> None:
        self.job = job
        self.resolve = resolve
        self.store = JobStore(job.folder.parent)
        self.count = 0  # a child's number counts on over all calls of a run
        self.ctx: Context

    def run(self, documents: Sequence[dict[str, Any]], watched: str) -> list[Result]:
        """The results of these documents, in order. All have ended when this raises the names of those that failed."""
        specs = [self.resolve(document) for document in documents]
        reasons = [f"{spec.name}: {sentence}" for spec in specs for sentence in spec.needs()]
        if reasons:
            raise Refused(" ".join(dict.fromkeys(reasons)))
        jobs = [self._submit(spec, watched) for spec in specs]
        if self.job.status().executor == INLINE:
            self._work_all(jobs)
        else:
            self._wait_for_all(jobs)
        bad = [job for job in jobs if job.status().state is not State.FINISHED]
        if bad:
            said = "; ".join(f"{job.id} ({job.document['run']}) {_end(job)}" for job in bad)
            raise Refused(f"{len(bad)} of {len(jobs)} runs of this suite did not finish: {said}")
        return [job.result() for job in jobs]

    def _submit(self, spec: RunSpec, watched: str) -> Job:
        status = self.job.status()
        name = f"{self.job.id}.{self.count:02d}"
        self.count += 1
        child = self.store.submit(
            spec.document,
            priority=status.priority,
            executor=status.executor,
            parent=self.job.id,
            watched=watched,
            id=name,
            slots=spec.slots * spec.together,
        )
        if child.document != json.loads(json.dumps(spec.document)):
            raise Refused(f"{name} was another run when this suite first started; submit the suite anew.")
        before = child.status()
        # A person who resumes a suite means its failed children too.
        if before.state in {State.CANCELLED, State.FAILED} and before.ended < status.resumed:
            child.resume()
        return child

    def _work_all(self, jobs: list[Job]) -> None:
        for done, child in enumerate(jobs):
            if len(jobs) > 1:  # of one, who asked for it has more to tell
                self.ctx.progress(done, len(jobs), f"run {done + 1} of {len(jobs)}: {child.document['run']}")
            _work(child, self.resolve, self.ctx.check)
            self.ctx.check()

    def _wait_for_all(self, jobs: list[Job]) -> None:
        told = -1
        while True:
            done = sum(job.status().state.is_over for job in jobs)
            if done != told and len(jobs) > 1:
                self.ctx.progress(done, len(jobs), "runs")
                told = done
            if done == len(jobs):
                return
            self.ctx.check()
            time.sleep(0.25)


def _end(job: Job) -> str:
    status = job.status()
    return f"{status.state}: {status.reason}" if status.reason else f"was {status.state}."


@contextmanager
def _heartbeat(job: Job) -> Iterator[None]:
    over = threading.Event()

    def beat() -> None:
        while True:
            try:
                job.alive_file.touch()
                _rotate(job)
            except OSError:
                log.exception("No sign of life could be given")
            if over.wait(_BEAT_SECONDS):
                return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _owns_log(job: Job) -> bool:
    # An executor gives its child the log as standard error; in a terminal that is the screen.
    try:
        return os.path.samestat(os.fstat(2), job.log_file.stat())
    except OSError:
        return False


def _rotate(job: Job) -> None:
    if not _owns_log(job) or job.log_file.stat().st_size < _LOG_BYTES:
        return
    job.log_file.replace(job.folder / "log.1.txt")
    fresh = os.open(job.log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(fresh, 1)
    os.dup2(fresh, 2)
    os.close(fresh)


@contextmanager
def _logging(job: Job) -> Iterator[None]:
    """Send logging and warnings to log.txt; a worker of an executor has its output there as well."""
    root = logging.getLogger()
    if _owns_log(job):
        faulthandler.enable()
        handler: logging.Handler = logging.StreamHandler(sys.stderr)
    else:
        handler = logging.FileHandler(job.log_file, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        handler.close()


@contextmanager
def _signals() -> Iterator[Stop]:
    """A stop callable that raises once SIGTERM or Ctrl-C came."""
    sentence = ""

    def note(number: int, _frame: object) -> None:
        nonlocal sentence
        sentence = f"The worker was asked to stop ({signal.Signals(number).name})."
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # the next Ctrl-C ends this process whatever it does

    def stop() -> None:
        if sentence:
            raise Interrupted(sentence)

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
