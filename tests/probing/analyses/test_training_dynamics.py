"""Snapshots of a training, each measured: nothing is measured twice, and what grows with the steps is seen to grow."""

from pathlib import Path

import learning
import pytest

from app import workbench
from engine import worker
from engine.errors import Refused
from engine.job import INLINE, Job, JobStore, State, Status
from engine.run import Context, Result
from probing.analyses import training_dynamics
from probing.analyses.training_dynamics import TrainingDynamics, reached

TRAINING = {**learning.TINY, "steps": 6, "snapshots": True}


def carried_out(document: dict[str, object]) -> Job:
    job = JobStore().submit(workbench.resolve(document).document, executor=INLINE)
    worker.work(job, workbench.resolve)
    return job


def test_every_snapshot_is_measured_and_what_is_there_is_shown_on_the_way(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = carried_out(TRAINING)
    shown: list[Result] = []
    monkeypatch.setattr(Context, "partial", lambda self, result: shown.append(result))
    spec = {"run": "training_dynamics", "training": f"job:{training.id}", "corpus": TRAINING["corpus"]}
    job = carried_out(spec)
    assert job.status().state is State.FINISHED, job.status().reason
    table = job.result().table
    accuracy = [line for line in table if line["measure"] == "accuracy"]
    assert [(line["step"], line["layer"]) for line in accuracy] == [(s, i) for s in (0, 1, 2, 4, 6) for i in (0, 1)]
    assert [len(result.facts["training"]["steps"]) for result in shown] == [1, 2, 3, 4, 5]

    # The last snapshot is the upstream that the training has made.
    name = f"job:{training.id}"
    plain = {"baselines": [], "twin": False, "repeats": 1, "control": False}
    probe = carried_out({"run": "linear_probe", "upstreams": [name], "corpus": TRAINING["corpus"], **plain})
    alone = [line["value"] for line in probe.result().table if line["measure"] == "accuracy" and line["upstream"] == name]
    assert alone == [line["value"] for line in accuracy if line["step"] == 6]


def test_it_goes_on_for_as_long_as_the_training_does(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training writes its last snapshot and ends between two looks at it."""
    training = JobStore().submit(workbench.resolve(TRAINING).document, executor=INLINE)
    made, asked, measured = [0], [], []

    def status(job: Job) -> Status:
        asked.append(job.id)
        if len(asked) < 5:
            return Status(State.RUNNING, total=4096.0)
        made[:] = [0, 4096]
        return Status(State.FINISHED)

    def children(ctx: Context, documents: list[dict[str, object]], watched: str) -> list[Result]:
        assert watched == training.id
        measured.extend(documents)
        return [Result([{"layer": 0, "measure": "accuracy", "value": 0.5}])]

    def progress(ctx: Context, done: float, total: float, stage: str = "") -> None:
        told.append((done, total, stage))

    told: list[tuple[float, float, str]] = []
    monkeypatch.setattr(Context, "progress", progress)
    monkeypatch.setattr(Job, "status", status)
    monkeypatch.setattr(Context, "children", children)
    monkeypatch.setattr(training_dynamics, "_steps", lambda job: list(made))
    monkeypatch.setattr(training_dynamics.time, "sleep", lambda seconds: None)
    (workspace / "job").mkdir()
    spec = TrainingDynamics(training=training.id, corpus="spoken:digits?voices=4", seed=3)
    result = spec.run(Context(workspace / "job", device="cpu"))
    assert result.facts["training"]["steps"] == [0, 4096]
    # Of the steps 0, 1, 2, 4 ... 4096 until the training has ended with two of them.
    assert told == [(0, 14, "measuring step 0"), (1, 14, "waiting for the next snapshot"), (1, 2, "measuring step 4,096")]
    assert [line["snapshot"] for line in result.table] == ["0", "4,096"]
    assert [one["upstreams"] for one in measured] == [[f"job:{training.id}@{step}"] for step in (0, 4096)]
    assert {one["seed"] for one in measured} == {3}


def test_a_layer_has_reached_what_it_gains_at_the_first_step_with_most_of_it() -> None:
    def lines(layer: int, **values: float) -> list[dict[str, object]]:
        return [{"step": int(k[1:]), "layer": layer, "measure": "accuracy", "value": v} for k, v in values.items()]

    table = lines(0, s0=0.5, s1=0.5, s2=0.5) + lines(1, s0=0.1, s1=0.99, s4=1.0) + lines(2, s0=0.0, s1=0.89, s4=0.95, s8=1.0)
    table += lines(3, s0=0.5, s1=0.9, s2=0.94, s4=1.0)
    assert reached(table) == {"accuracy": {"1": 1, "2": 4, "3": 4}}  # type: ignore[arg-type]


def test_a_training_that_left_nothing_is_said_and_half_a_snapshot_is_none(workspace: Path) -> None:
    training = JobStore().submit(workbench.resolve(TRAINING).document, executor=INLINE)
    half = training.folder / "artifacts" / "steps" / "000000000"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"")  # its card comes last
    training.cancel()
    with pytest.raises(Refused, match=f"Job {training.id} ended without a snapshot: "):
        TrainingDynamics(training=training.id).run(Context(workspace, device="cpu"))


def test_what_cannot_be_followed_is_said(workspace: Path) -> None:
    plain = carried_out({**TRAINING, "snapshots": False, "steps": 1})
    ask = lambda **changes: TrainingDynamics(**{"training": plain.id, "corpus": "spoken:digits", **changes}).needs()  # noqa: E731
    assert ask() == [f"Job {plain.id} keeps no snapshots; train with snapshots=true."]
    assert any("does not measure upstreams" in reason for reason in ask(analysis="training_dynamics"))
    assert any("There is no" in reason for reason in ask(analysis="nonsense"))
    assert "nobody" in ask(training="nobody")[0]
    with pytest.raises(Refused):
        workbench.submit({"run": "training_dynamics", "training": plain.id})
