"""The worker: whatever happens to it, the folder says how to go on."""

import errno
import logging
import os
import random
import signal
import subprocess
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import shortrun

from engine import worker
from engine.errors import explain
from engine.job import INLINE, Job, JobStore, State
from engine.run import Result
from engine.worker import BUSY, CANCELLED, FAILED, FINISHED, INTERRUPTED, work


@pytest.fixture(autouse=True)
def short(workspace: Path) -> None:
    shortrun.drop(workspace)


def submit(id: str = "", executor: str = "process", **settings: Any) -> Job:
    return JobStore().submit({"run": "short", "pause": 0.0, **settings}, id=id, executor=executor)


def kinds(job: Job) -> list[str]:
    return [event.kind for event in job.events.read()[0] if event.kind not in {"progress", "note"}]


def later(seconds: float, what: Any, *arguments: Any) -> None:
    threading.Timer(seconds, what, arguments).start()


def test_a_run_to_its_end() -> None:
    job = submit(steps=3, seed=7)
    assert work(job, shortrun.resolve) == FINISHED
    assert kinds(job) == ["submitted", "started", "finished"]
    result = job.result()
    assert [row["square"] for row in result.table] == [0, 1, 4]
    facts = result.facts
    assert facts["spec"]["run"] == "short" and facts["spec"]["steps"] == 3 and len(facts["key"]) == 16
    assert (facts["seed"], facts["attempt"], facts["notes"]) == (7, 1, ["Counted."])
    assert facts["versions"]["auscult"] and facts["versions"]["python"].startswith("3.")
    assert facts["started"] <= facts["ended"] and facts["seconds"] >= 0 and 5 < facts["peak_megabytes"] < 20_000
    assert job.heartbeat() is not None and not job.held
    assert not list(job.folder.rglob(".*.tmp"))


def test_a_second_call_changes_nothing() -> None:
    job = submit()
    work(job, shortrun.resolve)
    before = job.events.file.read_bytes(), job.result_file.read_bytes()
    assert work(Job(job.folder), shortrun.resolve) == FINISHED
    assert (job.events.file.read_bytes(), job.result_file.read_bytes()) == before


def test_a_result_whose_record_is_missing_is_recorded_once() -> None:
    job = submit()
    job.events.append("started", pid=1)
    Result([{"x": 1}]).save(job.result_file)
    assert work(job, shortrun.resolve) == work(Job(job.folder), shortrun.resolve) == FINISHED
    assert kinds(job) == ["submitted", "started", "finished"] and job.result().table == [{"x": 1}]


def test_a_refusal_is_the_reason() -> None:
    job = submit(behaviour="fail")
    assert work(job, shortrun.resolve) == FAILED
    assert job.status().reason == "This one always fails."
    assert "This one always fails." in job.log() and "Traceback" not in job.log()


def test_an_unexpected_error_is_one_sentence_and_the_log_keeps_the_rest() -> None:
    job = submit(behaviour="break")
    assert work(job, shortrun.resolve) == FAILED
    reason = job.status().reason
    assert "ValueError: nobody expected this)" in reason and "Traceback" not in reason and "\n" not in reason
    kept = job.folder / "traceback.txt"
    assert "Traceback" in kept.read_text("utf-8") and "second line" in kept.read_text("utf-8")
    assert "ValueError" in job.log() and str(kept) in job.log() and "Traceback" not in job.log()


@pytest.mark.parametrize(
    ("document", "reason"),
    [({"run": "unheard"}, "no run called 'unheard'"), ({"run": "short", "number": 2000}, "smaller number")],
)
def test_what_cannot_run_fails_with_the_reason(document: dict[str, Any], reason: str) -> None:
    job = JobStore().submit(document)
    assert work(job, shortrun.resolve) == FAILED
    assert reason in job.status().reason


def test_a_run_that_leaves_the_program_has_failed() -> None:
    job = submit(behaviour="exit")
    assert work(job, shortrun.resolve) == FAILED and "SystemExit" in job.status().reason


def test_a_full_disk_fails_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    job = submit()
    monkeypatch.setattr(Result, "save", full)
    assert work(job, shortrun.resolve) == FAILED and "disk is full" in job.status().reason
    monkeypatch.undo()
    job.resume()
    assert work(job, shortrun.resolve) == FINISHED and job.result().facts["first"] == 5


@pytest.mark.parametrize("error", [MemoryError(), ValueError(), ValueError("x" * 9000), OSError(errno.EDQUOT, "quota")])
def test_every_error_is_one_short_sentence(error: BaseException) -> None:
    assert 20 < len(explain(error)) < 500 and "\n" not in explain(error)


def test_a_job_that_is_worked_on_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_LOCK_SECONDS", 0.1)
    job = submit()
    with job.hold():
        assert work(Job(job.folder), shortrun.resolve) == BUSY
    assert kinds(job) == ["submitted"]


def test_a_job_cancelled_while_it_waited_does_not_begin() -> None:
    job = submit()
    job.cancel_file.touch()
    assert work(job, shortrun.resolve) == CANCELLED
    assert kinds(job) == ["submitted", "cancelled"]


def test_a_running_job_is_cancelled_and_resumed_from_its_checkpoint() -> None:
    job = submit(steps=500, pause=0.01)
    later(0.5, Job(job.folder).cancel)
    assert work(job, shortrun.resolve) == CANCELLED
    assert kinds(job) == ["submitted", "started", "cancelled"]
    done = int(job.status().done)
    assert 0 < done < 500
    job.resume()
    job.spec_file.write_text(job.spec_file.read_text().replace("500", str(done + 5)))
    assert work(job, shortrun.resolve) == FINISHED
    assert job.result().facts["first"] >= done and job.result().facts["attempt"] == 2


@pytest.mark.parametrize(
    ("executor", "number", "code", "state"),
    [
        ("process", signal.SIGTERM, INTERRUPTED, State.QUEUED),
        ("process", signal.SIGINT, INTERRUPTED, State.QUEUED),
        (INLINE, signal.SIGTERM, CANCELLED, State.CANCELLED),  # nobody would go on with it
        (INLINE, signal.SIGINT, CANCELLED, State.CANCELLED),
    ],
)
def test_a_signal_asks_the_run_to_stop(executor: str, number: signal.Signals, code: int, state: State) -> None:
    job = submit(executor=executor, steps=500, pause=0.01)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    later(0.3, os.kill, os.getpid(), number)
    assert work(job, shortrun.resolve) == code
    assert job.status().state is state and not job.result_file.exists()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_cancel_that_comes_with_a_signal_is_a_cancel() -> None:
    job = submit(steps=500, pause=0.01)
    later(0.3, lambda: (Job(job.folder).cancel(), os.kill(os.getpid(), signal.SIGTERM)))
    assert work(job, shortrun.resolve) == CANCELLED


def test_a_second_ctrl_c_kills() -> None:
    job = submit(executor=INLINE, behaviour="deaf", pause=0.05, steps=1000)
    child = subprocess.Popen([*shortrun.COMMAND, "worker", str(job.folder)], stderr=subprocess.DEVNULL)
    shortrun.wait(lambda: job.status().state is State.RUNNING and list(job.folder.glob("running-*")))
    child.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert child.poll() is None
    child.send_signal(signal.SIGINT)
    assert child.wait(5) == -signal.SIGINT
    assert not job.held


def test_a_worker_that_died_before_is_remembered() -> None:
    job = submit()
    job.events.append("started", pid=1)
    assert work(job, shortrun.resolve) == FINISHED
    assert kinds(job) == ["submitted", "started", "lost", "started", "finished"]


def test_it_works_beside_the_main_thread() -> None:
    job = submit()
    thread = threading.Thread(target=work, args=(job, shortrun.resolve))
    thread.start()
    thread.join(20)
    assert job.status().state is State.FINISHED


def test_the_seed_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    spec = type(shortrun.resolve({"run": "short"}))
    monkeypatch.setattr(spec, "run", lambda self, ctx: (drawn.append(random.random()), Result([]))[1])
    for seed in (1, 1, 2):
        work(submit(seed=seed), shortrun.resolve)
    assert drawn[0] == drawn[1] != drawn[2]


def test_logs_and_warnings_reach_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object) -> Result:
        logging.getLogger("somewhere").warning("a logged line")
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.showwarning("a warning", UserWarning, "file.py", 1)
        return Result([])

    job = submit()
    monkeypatch.setattr(type(shortrun.resolve({"run": "short"})), "run", run)
    handlers = list(logging.getLogger().handlers)
    work(job, shortrun.resolve)
    assert "a logged line" in job.log() and "a warning" in job.log()
    assert logging.getLogger().handlers == handlers


def test_a_full_log_is_begun_anew(workspace: Path) -> None:
    job = submit(behaviour="print")
    program = (
        "import sys; sys.path[:0] = sys.argv[2:]; from pathlib import Path; import shortrun; from engine import worker\n"
        "worker._LOG_BYTES, worker._BEAT_SECONDS = 1000, 0.05; print('x' * 2000, flush=True)\n"
        "from engine.job import Job; sys.exit(worker.work(Job(Path(sys.argv[1])), shortrun.resolve))"
    )
    job.spec_file.write_text(job.spec_file.read_text().replace('"pause": 0.0', '"pause": 0.1'))
    with job.log_file.open("ab") as log:
        command = [*shortrun.COMMAND[:1], "-c", program, str(job.folder), str(shortrun.HOUSE), str(shortrun.HOUSE / "tests")]
        assert subprocess.run(command, stdout=log, stderr=log).returncode == FINISHED
    assert "x" * 2000 in (job.folder / "log.1.txt").read_text()
    assert "x" not in job.log()


def test_a_suite_in_the_foreground() -> None:
    job = submit("suite", executor=INLINE, behaviour="children", steps=4)
    assert work(job, shortrun.resolve) == FINISHED
    assert job.result().table == [{"child": 0, "rows": 4}, {"child": 1, "rows": 4}]
    children = [child for child in JobStore() if child.status().parent == "suite"]
    assert [child.id for child in children] == ["suite.00", "suite.01"]
    assert all(child.status().state is State.FINISHED for child in children)
    assert work(job, shortrun.resolve) == FINISHED


def test_a_suite_names_the_child_that_failed_and_resumes_it_alone() -> None:
    job = submit("suite", executor=INLINE, behaviour="children", number=1)
    assert work(job, shortrun.resolve) == FAILED
    assert "1 of 2 runs of this suite did not finish: suite.01 (short) failed: This one always fails." in job.status().reason
    job.resume()
    job.events.append("resumed", executor=INLINE)
    assert work(job, shortrun.resolve) == FAILED
    assert kinds(JobStore().get("suite.00")).count("started") == 1
    assert kinds(JobStore().get("suite.01")).count("started") == 2


def test_a_cancelled_suite_cancels_its_children() -> None:
    job = submit("suite", executor=INLINE, behaviour="children", steps=500, pause=0.01)
    later(0.4, Job(job.folder).cancel)
    assert work(job, shortrun.resolve) == CANCELLED
    assert {JobStore().get(f"suite.0{number}").status().state for number in range(2)} == {State.CANCELLED}


def test_a_child_that_became_another_run_is_refused() -> None:
    JobStore().submit({"run": "short", "number": 9}, id="suite.00", parent="suite")
    job = submit("suite", executor=INLINE, behaviour="children")
    assert work(job, shortrun.resolve) == FAILED and "suite.00 was another run" in job.status().reason
