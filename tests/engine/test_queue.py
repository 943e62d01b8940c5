"""The queue: what it starts and when, and what it makes of workers that die."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import shortrun

from engine import queue
from engine.errors import Refused
from engine.job import INLINE, Job, JobStore, State, Status, hold
from engine.run import Result
from engine.settings import settings
from engine.slots import Slots
from engine.sweep import sweep

Serve = Callable[[], Callable[[], None]]


@pytest.fixture(autouse=True)
def short(workspace: Path) -> Iterator[None]:
    shortrun.drop(workspace)
    yield
    shortrun.end(workspace)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a queue in a thread and gives what stops it."""
    stops = []

    def start() -> Callable[[], None]:
        stop = threading.Event()
        thread = threading.Thread(target=queue.serve, args=(JobStore(), shortrun.COMMAND), kwargs={"stop": stop})
        thread.start()

        def end() -> None:
            stop.set()
            thread.join(30)
            assert not thread.is_alive()

        stops.append(end)
        return end

    yield start
    for end in stops:
        end()


def submit(id: str = "", *, slots: int = 1, executor: str = "process", watched: str = "", **more: Any) -> Job:
    about = {name: more.pop(name) for name in ("priority", "parent") if name in more}
    document = {"run": "short", "pause": 0.0, "steps": 2, **more}
    return JobStore().submit(document, id=id, slots=slots, executor=executor, watched=watched, **about)


def queue_process() -> "subprocess.Popen[bytes]":
    return subprocess.Popen([*shortrun.COMMAND, "queue"], stderr=subprocess.PIPE)


def kinds(job: Job) -> list[str]:
    return [event.kind for event in job.events.read()[0] if event.kind not in {"progress", "note"}]


def over(*jobs: Job) -> None:
    """Wait until these jobs are over and say so; a result counts a moment before its record."""
    ends = {"finished", "failed", "cancelled"}
    shortrun.wait(lambda: all(job.status().state.is_over and kinds(job)[-1] in ends for job in jobs), 40)


def running(job: Job) -> None:
    shortrun.wait(lambda: job.status().state is State.RUNNING and job.status().done > 0)


def test_higher_priority_first_then_age(serve: Serve) -> None:
    jobs = [submit("a"), submit("b"), submit("c", priority=5)]
    serve()
    over(*jobs)
    assert [job.status().state for job in jobs] == [State.FINISHED] * 3
    a, b, c = (job.status() for job in jobs)
    assert c.started < a.started < b.started
    assert c.ended <= a.started and a.ended <= b.started, "one slot, one run at a time"


def test_slots_are_shared_and_waiting_needs_none(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUSCULT_CPU_SLOTS", "2")
    settings.cache_clear()
    jobs = [submit(steps=400, pause=0.01) for _ in range(3)]
    waiter = submit("waiter", slots=0, steps=3000, pause=0.01)
    serve()
    running(jobs[0])
    running(jobs[1])
    running(waiter)
    assert jobs[2].status().state is State.QUEUED
    jobs[0].cancel()
    running(jobs[2])
    for job in (*jobs, waiter):
        job.cancel()
    over(*jobs, waiter)


def test_one_that_watches_a_running_job_waits_for_no_slot(serve: Serve) -> None:
    watched, other = submit("watched", steps=3000, pause=0.01), submit("other", watched="nobody")
    serve()
    running(watched)
    watcher = submit("watcher", watched="watched", steps=3000, pause=0.01)
    running(watcher)
    early = submit("early", watched="other")
    time.sleep(1)
    assert watched.status().state is State.RUNNING
    assert {other.status().state, early.status().state} == {State.QUEUED}, "what it watches does not run yet"
    watched.cancel()
    over(watched)
    late = submit("late", watched="watched")
    time.sleep(1)
    assert late.status().state is State.QUEUED, "what it watches is over, and the slot is taken"
    watcher.cancel()
    over(watcher, other, early, late)


def test_one_that_needs_more_than_there_is_gets_all(serve: Serve) -> None:
    job = submit(slots=9)
    serve()
    over(job)
    assert job.status().state is State.FINISHED


def test_a_cancel_is_obeyed(serve: Serve) -> None:
    willing, waiting = submit("a", steps=5000, pause=0.01), submit("b")
    serve()
    running(willing)
    waiting.cancel_file.touch()  # as a shell would
    shortrun.wait(lambda: waiting.status().state is State.CANCELLED)
    willing.cancel()
    shortrun.wait(lambda: willing.status().state is State.CANCELLED, 8)
    assert willing.status().attempts == 1 and waiting.status().attempts == 0


def test_a_run_that_does_not_listen_is_killed_with_all_it_started(
    serve: Serve, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_GRACE_SECONDS", 1.0)
    job = submit(behaviour="deaf", steps=10_000, pause=0.01)
    serve()
    shortrun.wait(lambda: list(job.folder.glob("running-*")))
    began = time.monotonic()
    job.cancel()
    over(job)
    assert job.status().state is State.CANCELLED and 0.9 < time.monotonic() - began < 10
    shortrun.wait(lambda: not [p for p in shortrun.processes(workspace) if "worker" in shortrun.words(p)])


def test_what_a_worker_leaves_behind_ends_with_it(serve: Serve, workspace: Path) -> None:
    job = submit(behaviour="leave")
    serve()
    over(job)
    shortrun.wait(lambda: not [p for p in shortrun.processes(workspace) if shortrun.words(p)[:1] == ["sleep"]])


def test_a_forked_child_does_not_keep_the_job(serve: Serve) -> None:
    job = submit(behaviour="fork", steps=100, pause=0.01)
    serve()
    running(job)
    os.kill(job.status().pid, signal.SIGKILL)
    over(job)
    assert kinds(job) == ["submitted", "started", "lost", "started", "finished"]
    shortrun.wait(lambda: not job.held)


def test_a_killed_worker_goes_on_from_its_checkpoint(serve: Serve) -> None:
    job = submit(steps=100, pause=0.01)
    serve()
    running(job)
    os.kill(job.status().pid, signal.SIGKILL)
    over(job)
    assert kinds(job) == ["submitted", "started", "lost", "started", "finished"]
    assert "killed by SIGKILL" in next(event for event in job.events.read()[0] if event.kind == "lost").values["reason"]
    assert job.result().facts["first"] > 0 and len(job.result().table) == 100


def test_what_kills_every_worker_is_given_up(serve: Serve) -> None:
    poison, healthy = submit("a", behaviour="abort"), submit("b")
    serve()
    over(poison, healthy)
    assert kinds(poison) == ["submitted", *["started", "lost"] * 3, "started", "failed"]
    assert "SIGABRT" in poison.status().reason and "tried 4 times" in poison.status().reason
    assert healthy.status().state is State.FINISHED
    poison.resume()
    shortrun.wait(lambda: poison.status().state is State.FAILED and poison.status().attempts == 8)


def test_a_worker_that_cannot_even_begin_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    job, stop = submit(), threading.Event()
    thread = threading.Thread(target=queue.serve, args=(JobStore(), ["false"]), kwargs={"stop": stop})
    thread.start()
    over(job)
    stop.set()
    thread.join()
    assert kinds(job) == ["submitted", "lost", "lost", "lost", "failed"] and "exit code 1" in job.status().reason


def test_a_command_that_is_not_there_is_said(serve: Serve) -> None:
    job, stop = submit(), threading.Event()
    thread = threading.Thread(target=queue.serve, args=(JobStore(), ["/no/such/program"]), kwargs={"stop": stop})
    thread.start()
    over(job)
    stop.set()
    thread.join()
    assert "FileNotFoundError" in job.status().reason


def test_an_executor_that_is_not_there_is_said(serve: Serve) -> None:
    job = submit(executor="abacus")
    serve()
    over(job)
    assert job.status().reason == "There is no executor called 'abacus' here."


def test_a_second_queue_is_refused(serve: Serve) -> None:
    serve()
    lock = JobStore().root / ".queue"
    shortrun.wait(lambda: lock.exists() and lock.read_text())
    with pytest.raises(Refused, match=f"already serves this workspace .process {os.getpid()}"):
        queue.serve(JobStore(), shortrun.COMMAND)


def test_workers_outlive_a_killed_queue_and_the_next_one_adopts_them() -> None:
    job, waiting = submit("a", steps=60, pause=0.05), submit("b")
    first = queue_process()
    running(job)
    first.kill()
    first.communicate()
    pid = job.status().pid
    second = queue_process()
    over(job, waiting)
    assert kinds(job) == ["submitted", "started", "finished"] and job.result().facts["pid"] == pid
    assert waiting.status().started >= job.status().ended, "the adopted one held its slot"
    second.terminate()
    assert second.communicate(timeout=20) and second.returncode == 0


def test_a_stopped_queue_interrupts_and_the_next_one_goes_on() -> None:
    job = submit(steps=150, pause=0.02)
    first = queue_process()
    running(job)
    first.terminate()
    first.communicate(timeout=20)
    assert first.returncode == 0 and job.status().state is State.QUEUED and not job.held
    second = queue_process()
    over(job)
    assert kinds(job) == ["submitted", "started", "interrupted", "started", "finished"]
    assert job.status().lost == 0 and job.result().facts["first"] > 0
    second.terminate()
    second.communicate(timeout=20)


def test_a_stopped_queue_kills_what_does_not_listen(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_GRACE_SECONDS", 0.5)
    job = submit(behaviour="deaf", steps=10_000, pause=0.01)
    end = serve()
    shortrun.wait(lambda: list(job.folder.glob("running-*")))
    end()
    assert kinds(job) == ["submitted", "started", "interrupted"] and not job.held
    assert job.status().state is State.QUEUED and job.status().lost == 0


def test_a_job_that_runs_in_a_terminal_is_left_alone_until_that_ends(serve: Serve) -> None:
    waiting, working = submit("a", executor=INLINE), submit("b", executor=INLINE)
    working.events.append("started", pid=os.getpid())
    with working.hold():
        serve()
        marker = submit("c")
        over(marker)
        assert waiting.status().state is State.QUEUED and working.status().state is State.RUNNING
    over(working)
    assert working.status().state is State.FAILED and "terminal" in working.status().reason
    working.resume()
    shortrun.wait(lambda: working.status().state is State.FINISHED)


def test_what_no_terminal_began_is_given_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_SILENT_SECONDS", 0.3)
    parent, child, alone = (submit(id, executor=INLINE, parent=of) for id, of in [("a", ""), ("a.00", "a"), ("b", "")])
    with parent.hold():
        serve()
        over(alone)
        assert alone.status().state is State.FAILED and "never began" in alone.status().reason
        assert child.status().state is State.QUEUED
    over(child)


def test_an_executor_that_breaks_stops_nobody_else(serve: Serve, workspace: Path) -> None:
    file = workspace / "extensions" / "executors" / "broken.py"
    file.parent.mkdir(parents=True)
    file.write_text(BROKEN)
    broken, healthy = submit("a", executor="broken"), submit("b")
    serve()
    over(healthy)
    assert healthy.status().state is State.FINISHED
    over(broken)
    assert "KeyError" in broken.status().reason


BROKEN = """
from engine.job import Executor


class Broken(Executor):
    @classmethod
    def affinity(cls):
        return 0

    def start(self, job, command):
        raise KeyError("start")

    def stop(self, job, *, force):
        raise KeyError("stop")

    def alive(self, job):
        return False
"""


def test_a_result_without_its_record_is_recorded(serve: Serve) -> None:
    job = submit()
    job.events.append("started", pid=1)
    Result([{"x": 1}]).save(job.result_file)
    serve()
    shortrun.wait(lambda: kinds(job) == ["submitted", "started", "finished"])


def test_a_suite_waits_for_its_children_without_a_slot(serve: Serve) -> None:
    suite = submit("suite", slots=0, behaviour="children")
    serve()
    over(suite)
    assert suite.result().table == [{"child": 0, "rows": 2}, {"child": 1, "rows": 2}]
    assert [JobStore().get(f"suite.0{number}").status().parent for number in range(2)] == ["suite"] * 2


def test_a_cancelled_suite_takes_its_children_with_it(serve: Serve) -> None:
    suite = submit("suite", slots=0, behaviour="children", steps=5000, pause=0.01)
    serve()
    shortrun.wait(lambda: (JobStore().root / "suite.01" / "spec.json").exists())
    running(JobStore().get("suite.00"))
    suite.cancel()
    children = [JobStore().get(f"suite.0{number}") for number in range(2)]
    over(suite, *children)
    assert {job.status().state for job in (suite, *children)} == {State.CANCELLED}


def test_a_deleted_job_stops_nobody_else(serve: Serve) -> None:
    gone = submit("a", executor=INLINE)
    serve()
    over(submit("b"))
    shutil.rmtree(gone.folder)
    over(submit("c"))


def test_an_idle_queue_leaves() -> None:
    began = time.monotonic()
    queue.serve(JobStore(), shortrun.COMMAND, idle_seconds=0.3)
    assert 0.3 <= time.monotonic() - began < 5
    assert not hold_fails()


def hold_fails() -> bool:
    with hold(JobStore().root / ".queue") as held:
        return not held


def test_ensure_starts_one_queue(workspace: Path) -> None:
    job = submit()
    for _ in range(3):
        queue.ensure(shortrun.COMMAND)
    over(job)
    queues = [process for process in shortrun.processes(workspace) if shortrun.words(process)[-1:] == ["queue"]]
    shortrun.wait(lambda: len([process for process in queues if process.is_running() and process.status() != "zombie"]) == 1)
    for process in queue._detached:
        process.terminate()
        process.wait(10)
    assert job.status().state is State.FINISHED


def test_a_frozen_worker_is_noted_and_keeps_its_job(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_SILENT_SECONDS", 0.5)
    job = submit(steps=60, pause=0.02)
    serve()
    running(job)
    os.kill(job.status().pid, signal.SIGSTOP)
    shortrun.wait(lambda: [note for note in job.status().notes if "sign of life" in note])
    time.sleep(0.5)
    os.kill(job.status().pid, signal.SIGCONT)
    over(job)
    assert kinds(job) == ["submitted", "started", "finished"]
    assert len([note for note in job.status().notes if "sign of life" in note]) == 1


def test_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = Slots()
    slots.gpus, slots.total = ["0", "1", "2"], 3
    adopted = Status(state=State.RUNNING, gpu="1")
    assert slots.free([adopted]) == 2
    assert slots.give("a", 1, [adopted]) == ["env", "CUDA_VISIBLE_DEVICES=0", "AUSCULT_DEVICE=cuda"]
    assert slots.give("b", 1, [adopted]) == ["env", "CUDA_VISIBLE_DEVICES=2", "AUSCULT_DEVICE=cuda"]
    assert slots.give("suite", 0, [adopted]) == ["env", "CUDA_VISIBLE_DEVICES="]


def test_the_sweeper_takes_what_no_living_writer_owns(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    names = [f".a.ab12cd.{dead.pid}.tmp", f".b.ab12cd.{os.getpid()}.tmp", ".c.tmp", "d.tmp", ".e.txt"]
    for name in names:
        (tmp_path / name).write_text("")
    folder = tmp_path / "deep" / f".job.ab12cd.{dead.pid}.tmp"
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text("{}")
    assert sweep(tmp_path) == [], "too young"
    assert {place.name for place in sweep(tmp_path, seconds=0)} == {names[0], folder.name}
    os.utime(tmp_path / ".c.tmp", (0, 0))
    assert [place.name for place in sweep(tmp_path)] == [".c.tmp"]
    assert sorted(place.name for place in tmp_path.iterdir()) == sorted([names[1], "d.tmp", ".e.txt", "deep"])
