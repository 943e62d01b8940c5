"""The training loop: it learns, stops on nonsense, and when killed anywhere goes on with the numbers it would have had."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.errors import Cancelled, Interrupted, Refused
from engine.events import EventLog
from engine.run import Context
from engine.settings import HOUSE
from engine.training.fit import Fit, fit
from engine.training.order import Order
from engine.training.plan import Loss, Plan, Trainee, seed_all
from engine.training.saves import Checkpoints


class Noisy(Trainee):
    """A regression that draws from every generator a training may draw from."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.2), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Loss:
        noise = random.random() + float(np.random.rand()) + torch.rand(())
        return Loss.mean((self.net(x)[:, 0] - x.sum(1)).square() + 0.01 * noise)


def order(step: int) -> list[int]:
    return [8 * step + clip for clip in range(8)]


def batch(clips: list[int], step: int) -> Tensor:
    return torch.stack([torch.randn(4, generator=torch.Generator().manual_seed(clip)) for clip in clips])


def train(folder: Path, stop: Callable[[], None] | None = None, **changes: object) -> Fit:
    folder.mkdir(exist_ok=True)
    values = {"steps": 30, "rate": 1e-2, "checkpoint_every": 7, "validate_every": 10, **changes}
    module = Noisy()
    held = batch(order(10_000), 10_000)
    seed_all(99)  # whatever the process drew before must not matter
    return fit(
        module,
        order,
        batch,
        Plan(**values),  # type: ignore[arg-type]
        Context(folder, device="cpu", stop=stop),
        validate=lambda: {"valid_loss": float(module(held).total) / 8},
        watch="valid_loss",
    )


def trace(folder: Path) -> dict[int, dict[str, str]]:
    """Step -> every number told then, in hexadecimal; a step told twice must have been told alike."""
    found: dict[int, dict[str, str]] = {}
    for event in EventLog(folder / "events.jsonl").read()[0]:
        if event.kind == "metric":
            values = {name: float(value).hex() for name, value in event.values.items() if name != "step"}
            assert found.setdefault(event.values["step"], values) == values
    return found


def test_it_learns(tmp_path: Path) -> None:
    fitted = train(tmp_path / "run", steps=200)
    assert fitted.history[-1]["valid_loss"] < 0.2 * fitted.history[0]["loss"]
    assert fitted.best is not None and fitted.best_weights is not None
    assert [told["step"] for told in fitted.history] == list(range(1, 201))


@pytest.mark.parametrize("error", [Cancelled, Interrupted])
def test_stopped_at_any_step_and_resumed_it_tells_the_same_numbers(tmp_path: Path, error: type[Exception]) -> None:
    train(tmp_path / "whole")
    stops = [3, 1, 9, 6, 4]  # steps until each stop
    calls = 0

    def stop() -> None:
        nonlocal calls
        calls += 1
        if stops and calls > stops[0]:
            stops.pop(0)
            calls = 0
            raise error("stop")

    for _ in range(20):
        try:
            train(tmp_path / "torn", stop)
            break
        except error:
            continue
    assert not stops
    assert trace(tmp_path / "torn") == trace(tmp_path / "whole")
    assert len(trace(tmp_path / "torn")) == 30


CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_fit import train
train(Path(sys.argv[1]), lambda: time.sleep(0.02))
"""


def test_killed_and_resumed_it_tells_the_same_numbers(tmp_path: Path) -> None:
    train(tmp_path / "whole")
    folder = tmp_path / "killed"
    folder.mkdir()
    command = [sys.executable, "-c", CHILD, str(folder), str(Path(__file__).parent)]
    child = subprocess.Popen(command, cwd=HOUSE, env={**os.environ, "PYTHONPATH": str(HOUSE)})
    # After the second checkpoint and before the end, so that there is something to go on from and something to do.
    until = time.monotonic() + 60
    while len(trace(folder)) < 17 and time.monotonic() < until:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert 17 <= len(trace(folder)) < 30
    train(folder)
    assert trace(folder) == trace(tmp_path / "whole")


@pytest.mark.parametrize("parts", [1, 3])
def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(tmp_path: Path, parts: int) -> None:
    def poisoned(clips: list[int], step: int) -> Tensor:
        return batch(clips, step) * (float("nan") if step == 12 and 8 * step + 1 in clips else 1.0)

    with pytest.raises(Refused, match="step 13 is not a number"):
        fit(Noisy(), order, poisoned, Plan(30, 1e-2, checkpoint_every=5, parts=parts), Context(tmp_path, device="cpu"))
    state = Checkpoints(tmp_path / "checkpoints").newest(print)
    assert state is not None and state["step"] == 10
    assert all(bool(torch.isfinite(weight).all()) for weight in state["module"].values())


def test_order_and_clips_are_asked_for_on_one_thread_alone(tmp_path: Path) -> None:
    asked = set()

    def noted(step: int) -> list[int]:
        asked.add(("order", threading.get_ident()))
        return order(step)

    def loaded(clips: list[int], step: int) -> Tensor:
        asked.add(("load", threading.get_ident()))
        return batch(clips, step)

    fit(Noisy(), noted, loaded, Plan(9, 1e-2), Context(tmp_path, device="cpu"), seconds=len)
    assert len(asked) == 2 and len({thread for _, thread in asked}) == 1


class Ill(Noisy):
    """Complains of every step, in one of two ways."""

    def unwell(self, told: dict[str, float]) -> str:
        return f"It is ill ({told['loss']:.4f})." if told["rate"] < 0.005 else f"It has a fever of {told['loss']:.2f}."


def test_an_illness_is_said_once_however_often_it_is_resumed(tmp_path: Path) -> None:
    def stop() -> None:
        if len(trace(tmp_path)) in (8, 20):
            raise Interrupted("enough")

    for stopped in (stop, stop, None):
        with suppress(Interrupted):
            fit(Ill(), order, batch, Plan(30, 1e-2, warm_up=0.0), Context(tmp_path, device="cpu", stop=stopped))
    notes = [event.values["text"] for event in EventLog(tmp_path / "events.jsonl").read()[0] if event.kind == "note"]
    assert [re.sub(r" \(.*| of .*", "", note) for note in notes] == ["At step 1: It has a fever", "At step 17: It is ill"]


def test_order_deals_every_clip_once_an_epoch_within_the_budget() -> None:
    lengths = list(np.random.default_rng(0).uniform(1, 10, 50))
    order = Order(lengths, 30.0, seed=4)
    step, seen = 0, []
    while len(seen) < 50:
        indices = order(step)
        assert max(lengths[i] for i in indices) * len(indices) <= 30.0
        seen += indices
        step += 1
    assert sorted(seen) == list(range(50))
    fresh = Order(lengths, 30.0, seed=4)
    assert fresh(step + 40) == order(step + 40)  # asked for out of turn, as after a resume
    assert [order(place) for place in range(5)] != [order(step + place) for place in range(5)]


def test_bfloat16_learns_and_a_later_float32_run_is_not_touched_by_it(tmp_path: Path) -> None:
    train(tmp_path / "before")
    train(tmp_path / "half", precision="bfloat16")
    train(tmp_path / "after")
    assert trace(tmp_path / "before") == trace(tmp_path / "after") != trace(tmp_path / "half")


def test_float16_on_a_cpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="needs a GPU"):
        train(tmp_path / "run", precision="float16")


def test_events_are_plain_json(tmp_path: Path) -> None:
    train(tmp_path / "run", steps=3)
    for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines():
        json.loads(line)
