"""What the Jobs pages say about a job."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from app import summaries
from app.summaries import Curves, Ledger
from engine.events import Event
from engine.job import Job, JobStore, State
from engine.run import Result


def job(run: str = "linear_probe", **document: Any) -> Job:
    return JobStore().submit({"run": run, **document})


def metric(step: float, **values: Any) -> Event:
    return Event(0.0, "metric", {"step": step, **values})


def test_job_is_told_through_its_life() -> None:
    ledger = Ledger()
    one = job(upstream="fbank", corpus="spoken:digits")
    row = ledger.row(one.id)
    assert row is not None
    assert (row.title, row.about, row.state_text) == ("Linear probe", "fbank · spoken:digits", "Waiting")
    assert row.can_cancel
    assert not row.can_resume

    one.events.append("started", pid=1)
    one.alive_file.touch()
    one.events.append("progress", done=0, total=10, stage="Extracting")
    one.events.append("progress", done=4, total=10, stage="Extracting")
    one.events.append("metric", step=1, train_loss=0.5, valid_accuracy=0.7)
    one.events.append("metric", step=2, train_loss=0.4, valid_accuracy=0.6)
    row = ledger.row(one.id)
    assert row is not None
    assert (row.state, row.stage, row.share, row.heartbeat) == ("running", "Extracting", 0.4, "now")
    assert row.metric == "valid accuracy 0.6"
    assert row.best == "best 0.7 at step 1"

    one.cancel_file.touch()
    row = ledger.row(one.id)
    assert row is not None
    assert row.state_text == "Stopping"
    assert not row.can_cancel

    one.events.append("failed", reason="The disk is full.")
    row = ledger.row(one.id)
    assert row is not None
    assert (row.state, row.reason, row.can_resume) == ("failed", "The disk is full.", True)

    Result([{"layer": 0}]).save(one.result_file)
    row = ledger.row(one.id)
    assert row is not None
    assert (row.state, row.share, row.has_result, row.reason) == ("finished", 1.0, True, "")


def test_silent_worker_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    one = job()
    one.events.append("started", pid=1)
    one.alive_file.touch()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 90)
    row = Ledger().row(one.id)
    assert row is not None
    assert row.stale
    assert row.heartbeat == "2 min ago"


def test_only_what_is_new_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, one = Ledger(), job()
    one.events.append("metric", step=1, loss=1.0)
    assert ledger.curves(one.id) == {"loss": [(1, 1.0)]}
    offsets = []
    read = type(one.events).read

    def watched(log: Any, offset: int = 0) -> Any:
        offsets.append(offset)
        return read(log, offset)

    monkeypatch.setattr(type(one.events), "read", watched)
    one.events.append("metric", step=2, loss=0.5)
    assert ledger.curves(one.id) == {"loss": [(1, 1.0), (2, 0.5)]}
    assert offsets
    assert min(offsets) > 0


def test_newest_first_and_children_under_their_parent() -> None:
    store = JobStore()
    store.submit({"run": "cca"}, id="1-old")
    store.submit({"run": "smoke"}, id="2-suite")
    store.submit({"run": "cca"}, id="2-suite.1", parent="2-suite")
    store.submit({"run": "cca"}, id="2-suite.0", parent="2-suite")
    assert [row.id for row in Ledger().rows()] == ["2-suite", "2-suite.0", "2-suite.1", "1-old"]
    assert [row.parent for row in Ledger().rows()][1] == "2-suite"
    assert len(Ledger().rows(2)) == 2


@pytest.mark.parametrize(
    "id", ["", ".", "..", "../..", "../other", "1-one/inside", "/etc", "\0", "x" * 300, "nothing", ".hidden"]
)
def test_an_id_is_never_a_path(id: str, workspace: Path) -> None:
    JobStore().submit({"run": "cca"}, id="1-one")
    for place in ("other", "jobs/1-one/inside", "jobs/.hidden"):
        (workspace / place).mkdir(parents=True)
        (workspace / place / "spec.json").write_text('{"run": "cca"}')
    assert summaries.find(id) is None
    assert Ledger().row(id) is None
    assert Ledger().curves(id) == {}


def test_unreadable_folder_harms_nothing(workspace: Path) -> None:
    good = job()
    bad = workspace / "jobs" / "9-bad"
    bad.mkdir()
    (bad / "spec.json").write_text("{")
    (bad / "events.jsonl").write_bytes(b'\xff\xfe{"time": "now"\n[]\n')
    rows = Ledger().rows()
    assert [row.id for row in rows] == ["9-bad", good.id]
    assert rows[0].title == ""


def test_run_whose_file_is_gone_keeps_a_name() -> None:
    row = Ledger().row(job("no_such_run").id)
    assert row is not None
    assert row.title == "No such run"


def test_curve_goes_back_to_the_checkpoint() -> None:
    curves = Curves()
    for step, loss in [(1, 3.0), (2, 2.0), (3, 1.0), (2, 2.5), (3, 1.5)]:
        curves.take(metric(step, loss=loss))
    assert curves.points == {"loss": [(1, 3.0), (2, 2.5), (3, 1.5)]}


def test_what_is_no_number_is_no_point() -> None:
    curves = Curves()
    curves.take(metric(1, loss=float("nan"), name="x", flag=True, none=None, fine=1))
    curves.take(Event(0.0, "metric", {"loss": 1.0}))
    assert curves.points == {"fine": [(1, 1)]}


def test_best_knows_which_way_is_better() -> None:
    curves = Curves({"loss": [(1, 3.0), (2, 1.0), (3, 2.0)]})
    assert curves.best("loss", higher=False) == (2, 1.0)
    assert curves.best("loss", higher=True) == (1, 3.0)
    assert curves.best("other", higher=True) is None
    for name in ("valid_loss", "test/wer", "eer"):
        assert summaries.lower_is_better(name)
    for name in ("valid_accuracy", "f1", "closs"):
        assert not summaries.lower_is_better(name)


def test_thinning_loses_no_spike() -> None:
    points = [(float(step), 0.0) for step in range(100_000)]
    points[54_321] = (54_321.0, 9.0)
    points[7] = (7.0, -9.0)
    kept = summaries.thin(points, 500)
    assert len(kept) <= 500
    assert {points[0], points[-1], points[7], points[54_321]} <= set(kept)
    assert kept == sorted(kept)
    assert summaries.thin(points[:100], 500) == points[:100]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (3599, "1 h"),
        (4000, "1 h 7 min"),
        (40_000, "11 h"),
        (90_000, "1 day"),
        (4e5, "5 days"),
    ],
)
def test_spans_are_said(seconds: float, said: str) -> None:
    assert summaries.span(seconds) == said


@pytest.mark.parametrize(
    ("value", "said"), [(0.0, "0"), (0.12344, "0.1234"), (1e-5, "1.00e-05"), (1234.5, "1,234"), (-2.5, "-2.5")]
)
def test_numbers_are_said(value: float, said: str) -> None:
    assert summaries.number(value) == said


def test_quantities_share_a_panel() -> None:
    assert summaries.quantities(["train_loss", "valid_loss", "rate"]) == {
        "rate": ["rate"],
        "loss": ["train_loss", "valid_loss"],
    }


def test_document_of_a_damaged_job(workspace: Path) -> None:
    one = job()
    one.spec_file.write_text(json.dumps([1]))
    assert summaries.document(one) == {"run": ""}
    assert one.status().state is State.QUEUED
