"""One training in two processes: the losses of one process, stopped and gone on with by another number of them."""

import os
import signal
import subprocess
import time
from pathlib import Path

import learning
import pytest
import torch

from app import workbench
from engine import ranks
from engine.job import Job, JobStore, State
from engine.run import Context
from engine.settings import HOUSE
from engine.training.fit import fit
from engine.training.plan import Plan
from tests.engine.training.test_fit import Noisy, batch

TINY = {**learning.TINY, "steps": 20, "dropout": 0, "checkpoint_every": 4, "validate_every": 10}


def begin(**changes: object) -> Job:
    return JobStore().submit(workbench.resolve({**TINY, **changes}).document)


def worker(job: Job) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*workbench.COMMAND, "worker", str(job.folder)]
    return subprocess.Popen(command, cwd=HOUSE, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def losses(job: Job) -> dict[int, tuple[float, ...]]:
    """Step -> what was told then; a step told twice must have been told alike."""
    found: dict[int, tuple[float, ...]] = {}
    for event in job.events.read()[0]:
        if event.kind == "metric" and "loss" in event.values:
            told = tuple(
                event.values[name] for name in sorted({"loss", "gradient", "rate", "valid_loss"} & set(event.values))
            )
            assert found.setdefault(event.values["step"], told) == pytest.approx(told, rel=1e-4)
    return found


def test_two_processes_lose_what_one_does_and_one_goes_on_where_two_were_stopped(workspace: Path) -> None:
    alone, shared = begin(), begin(processes=2)
    workbench.resolve(alone.document).run(Context(alone.folder, device="cpu"))
    child = worker(shared)
    until = time.monotonic() + 120
    while len(losses(shared)) < 6 and time.monotonic() < until and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    child.wait(60)
    assert 6 <= len(losses(shared)) < 20
    assert shared.status().state is State.QUEUED  # to be gone on with
    assert not list(shared.folder.glob("process-*"))
    workbench.resolve(shared.document).run(Context(shared.folder, device="cpu"))
    one, two = losses(alone), losses(shared)
    assert sorted(one) == sorted(two) == list(range(1, 21))
    for step, told in one.items():
        assert two[step] == pytest.approx(told, rel=1e-4), step
    notes = [event.values["text"] for event in shared.events.read()[0] if event.kind == "note"]
    assert any("2 processes" in note and "goes on with 1" in note for note in notes)


FAILING = '''
"""Fails in its second process."""

import time

from engine import ranks
from engine.errors import Refused
from engine.run import Context, Result, RunSpec


class Lame(RunSpec):
    """Fails in its second process."""

    processes: int = 2

    def run(self, ctx: Context) -> Result:
        if ranks.rank():
            raise Refused("The second one has no data.")
        while True:
            ctx.check()
            time.sleep(0.05)
'''


def test_what_fails_in_another_process_is_said(workspace: Path) -> None:
    file = workspace / "extensions" / "analyses" / "lame.py"
    file.parent.mkdir(parents=True)
    file.write_text(FAILING)
    job = JobStore().submit({"run": "lame", "seed": 0, "processes": 2})
    worker(job).wait(120)
    assert job.status().state is State.FAILED
    assert job.status().reason == "Process 2 of 2: The second one has no data."


def test_a_process_without_a_clip_computes_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = {1: [0.0], 2: [4.0, 1.0]}  # the other process is not asked to stop, and has a loss of 1.0 over 4 numbers
    monkeypatch.setattr(ranks, "sums", lambda mine, device: [a + b for a, b in zip(mine, theirs[len(mine)], strict=True)])
    monkeypatch.setattr(ranks, "world", lambda: 2)
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    module = Noisy()
    before = {name: weight.clone() for name, weight in module.state_dict().items()}
    plan = Plan(1, 1e-2, warm_up=0, decay=0)
    fitted = fit(module, lambda step: [3], batch, plan, Context(tmp_path, device="cpu"))
    assert fitted.history[0]["loss"] == 0.25 and fitted.history[0]["gradient"] == 0
    assert all(torch.equal(weight, before[name]) for name, weight in module.state_dict().items())
    assert not (tmp_path / "checkpoints").exists()  # the first process writes


def test_sums_of_one_process_are_its_own() -> None:
    assert ranks.sums([1.5, 2.0], torch.device("cpu")) == [1.5, 2.0]
