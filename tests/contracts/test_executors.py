"""What every executor keeps to."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import shortrun

from engine.executors.inline import Inline
from engine.job import EXECUTORS, Executor, Job, JobStore, State


@pytest.fixture(params=sorted(EXECUTORS.classes()))
def executor(request: pytest.FixtureRequest, workspace: Path) -> Iterator[Executor]:
    shortrun.drop(workspace)
    kind = EXECUTORS.get(request.param)
    if kind.affinity() < 0:
        pytest.skip(f"{request.param} cannot run on this machine.")
    yield Inline(shortrun.resolve) if kind is Inline else kind()
    shortrun.end(workspace)


def begin(executor: Executor, **settings: object) -> tuple[Job, threading.Thread]:
    """Start a job; an executor may return when it is done."""
    job = JobStore().submit({"run": "short", "pause": 0.02, **settings}, executor=executor.name)
    command = [*shortrun.COMMAND, "worker", str(job.folder)]
    thread = threading.Thread(target=executor.start, args=(Job(job.folder), command))
    thread.start()
    return job, thread


def end(executor: Executor, job: Job, thread: threading.Thread) -> None:
    thread.join(20)
    shortrun.wait(lambda: not executor.alive(job))


def test_its_name_is_its_files(executor: Executor) -> None:
    assert type(executor).name == type(executor).__module__.rsplit(".", 1)[-1] and executor.affinity() in {0, 1, 2}


def test_a_job_runs_to_its_end(executor: Executor) -> None:
    job, thread = begin(executor)
    shortrun.wait(lambda: job.status().state is State.FINISHED)
    end(executor, job, thread)
    assert len(job.result().table) == 5 and executor.cause(job) in {"", "exit code 0"}


def test_a_failure_is_in_the_folder(executor: Executor) -> None:
    job, thread = begin(executor, behaviour="break")
    end(executor, job, thread)
    assert job.status().state is State.FAILED and "Traceback" in (job.folder / "traceback.txt").read_text()


def test_a_stop_is_obeyed(executor: Executor) -> None:
    job, thread = begin(executor, steps=2000)
    shortrun.wait(lambda: job.status().done > 0)
    assert executor.alive(job)
    executor.stop(job, force=False)
    end(executor, job, thread)
    assert job.status().state in {State.QUEUED, State.CANCELLED} and not job.result_file.exists()


def test_a_stop_of_what_never_began_or_has_ended_is_nothing(executor: Executor) -> None:
    waiting = JobStore().submit({"run": "short"}, executor=executor.name)
    assert not executor.alive(waiting)
    job, thread = begin(executor)
    end(executor, job, thread)
    for force in (False, True):
        executor.stop(job, force=force)
        executor.stop(waiting, force=force)
    assert job.status().state is State.FINISHED


def test_a_stranger_finds_a_living_worker(executor: Executor) -> None:
    # As the next queue does, whose executor object has started nothing.
    job, thread = begin(executor, steps=2000)
    shortrun.wait(lambda: job.status().done > 0)
    stranger = Inline(shortrun.resolve) if isinstance(executor, Inline) else type(executor)()
    assert stranger.alive(job)
    stranger.stop(job, force=False)
    end(executor, job, thread)
    assert not stranger.alive(job)


def test_a_started_job_that_is_over_stays_as_it_is(executor: Executor) -> None:
    job, thread = begin(executor)
    end(executor, job, thread)
    before = job.events.file.read_bytes()
    executor.start(job, [*shortrun.COMMAND, "worker", str(job.folder)])
    shortrun.wait(lambda: not executor.alive(job))
    assert job.events.file.read_bytes() == before
