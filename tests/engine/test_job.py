"""Jobs: a folder whose state is a fold over its events."""

import threading
import time

import pytest

from engine.errors import Refused, Unknown
from engine.events import Event
from engine.job import INLINE, Job, JobStore, State, Status
from engine.run import Result

DOCUMENT = {"run": "short", "steps": 3}


@pytest.fixture
def job() -> Job:
    return JobStore().submit(DOCUMENT)


def start(job: Job) -> None:
    job.events.append("started", pid=1, host="here", attempt=1)


def test_a_submitted_job_waits(job: Job) -> None:
    status = job.status()
    assert status.state is State.QUEUED and not status.state.is_over
    assert (status.priority, status.slots, status.executor, status.attempts) == (0, 1, "process", 0)
    assert job.document == DOCUMENT and not job.held and job.heartbeat() is None and job.log() == ""


def test_submitting_an_id_again_gives_the_job_that_is_there() -> None:
    store = JobStore()
    first = store.submit(DOCUMENT, id="one", priority=4)
    start(first)
    again = store.submit({"run": "other"}, id="one")
    assert again.document == DOCUMENT and again.status().state is State.RUNNING and again.status().priority == 4
    assert [job.id for job in store] == ["one"]


def test_one_of_many_submitters_of_an_id_wins() -> None:
    store = JobStore()
    ready = threading.Barrier(8)

    def submit(number: int) -> None:
        ready.wait()
        store.submit({"run": "short", "number": number}, id="same")

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [file.name for file in store.root.iterdir()] == ["same"]
    assert len(store.get("same").events.read()[0]) == 1


@pytest.mark.parametrize("run", ["", "../../x", "a/b", None])
def test_a_document_without_a_name_is_refused(run: object) -> None:
    with pytest.raises(Refused, match="name of a run"):
        JobStore().submit({"run": run})


def test_a_life(job: Job) -> None:
    start(job)
    job.events.append("progress", done=2, total=10, stage="counting")
    job.events.append("metric", step=7, loss=0.5)
    job.events.append("note", text="Said.")
    status = job.status()
    assert (status.state, status.attempts, status.pid, status.host) == (State.RUNNING, 1, 1, "here")
    assert (status.done, status.total, status.stage, status.step, status.metrics) == (2, 10, "counting", 7, {"loss": 0.5})
    job.events.append("lost", reason="It was killed.")
    assert (job.status().state, job.status().lost, job.status().reason) == (State.QUEUED, 1, "It was killed.")
    start(job)
    job.events.append("interrupted", reason="SIGTERM")
    assert (job.status().state, job.status().lost, job.status().attempts) == (State.QUEUED, 1, 2)
    start(job)
    job.events.append("failed", reason="It broke.")
    assert job.status().state is State.FAILED and job.status().ended > 0
    job.resume()
    assert (job.status().state, job.status().lost, job.status().reason) == (State.QUEUED, 0, "")


def test_what_is_over_stays_over(job: Job) -> None:
    job.events.append("cancelled")
    for late in ("started", "lost", "interrupted", "failed"):
        job.events.append(late, reason="late", pid=1)
    assert job.status().state is State.CANCELLED
    job.events.append("finished")
    assert job.status().state is State.FINISHED


@pytest.mark.parametrize(
    "kind", ["submitted", "started", "progress", "metric", "note", "lost", "finished", "failed", "unheard of"]
)
def test_an_event_without_its_values_harms_nothing(kind: str) -> None:
    Status().take(Event(1.0, kind, {}))


def test_a_written_result_is_a_success(job: Job) -> None:
    start(job)
    with pytest.raises(Refused, match="no result: it is running"):
        job.result()
    Result([{"x": 1}]).save(job.result_file)
    assert job.status().state is State.FINISHED and job.status().ended > 0
    assert job.conclude() and job.conclude()
    assert [event.kind for event in job.events.read()[0]].count("finished") == 1
    assert job.result().table == [{"x": 1}]


def test_nothing_is_concluded_without_a_result(job: Job) -> None:
    assert not job.conclude()
    assert [event.kind for event in job.events.read()[0]] == ["submitted"]


def test_a_waiting_job_is_cancelled_at_once(job: Job) -> None:
    job.cancel()
    assert job.status().state is State.CANCELLED
    job.cancel()
    assert [event.kind for event in job.events.read()[0]] == ["submitted", "cancelled"]


def test_a_running_job_is_asked_to_stop(job: Job) -> None:
    start(job)
    job.cancel()
    assert job.status().state is State.RUNNING and job.cancel_file.exists()


def test_a_job_whose_worker_is_about_to_begin_is_asked_to_stop(job: Job) -> None:
    with job.hold() as held:
        assert held and job.held
        Job(job.folder).cancel()
    assert job.status().state is State.QUEUED and job.cancel_file.exists() and not job.held


def test_children_are_cancelled_with_their_parent() -> None:
    store = JobStore()
    parent, stranger = store.submit(DOCUMENT, id="p"), store.submit(DOCUMENT, id="p.x")
    children = [store.submit(DOCUMENT, id=f"p.{index:02d}", parent="p") for index in range(2)]
    parent.cancel()
    assert {child.status().state for child in children} == {State.CANCELLED}
    assert stranger.status().state is State.QUEUED


def test_only_what_ended_badly_is_resumed(job: Job) -> None:
    with pytest.raises(Refused, match="is queued; only"):
        job.resume()
    job.cancel()
    job.resume()
    assert job.status().state is State.QUEUED and not job.cancel_file.exists()


def test_a_resumed_inline_job_goes_to_the_queue() -> None:
    job = JobStore().submit(DOCUMENT, executor=INLINE)
    job.events.append("failed", reason="The terminal ended.")
    job.resume()
    assert job.status().executor == "process"


def test_a_lock_has_one_holder(job: Job) -> None:
    with job.hold() as first, job.hold() as second:
        assert first and not second
    began = time.monotonic()
    with job.hold(), job.hold(0.2) as late:
        assert not late and time.monotonic() - began >= 0.2
    assert not job.held


def test_time_left_is_reckoned_from_this_stage() -> None:
    status, now = Status(), time.time()
    for moment, kind, values in [
        (now - 100, "started", {"pid": 1}),
        (now - 20, "progress", {"done": 50.0, "total": 100.0, "stage": "training"}),
        (now - 10, "progress", {"done": 60.0, "total": 100.0, "stage": "training"}),
    ]:
        status.take(Event(moment, kind, values))
    assert status.seconds_left == pytest.approx(80, abs=1)  # 10 in 20 s, 40 to go: a resume at 50 is not this attempt's work
    status.take(Event(now, "progress", {"done": 0.0, "total": 5.0, "stage": "testing"}))
    assert status.seconds_left is None


def test_jobs_are_found_by_how_their_id_begins() -> None:
    store = JobStore()
    for id in ("1101-a", "1102-b", "1102-b.00"):
        store.submit(DOCUMENT, id=id)
    assert store.get("1101").id == "1101-a" and store.get("1102-b").id == "1102-b"
    for unknown in ("", "11", "../jobs", "."):
        with pytest.raises(Unknown):
            store.get(unknown)


def test_what_is_half_submitted_is_no_job() -> None:
    store = JobStore()
    (store.root / ".x.ab12cd.1.tmp").mkdir(parents=True)
    (store.root / "empty").mkdir()
    assert list(store) == []


def test_the_end_of_a_long_log(job: Job) -> None:
    job.log_file.write_text("ä" * 1000 + "end")
    assert job.log(10).endswith("end") and len(job.log(10)) <= 10
