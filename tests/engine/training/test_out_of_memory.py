"""Where memory runs out, the step is done again in more parts, with the same draws and the same result."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.errors import Interrupted, Refused
from engine.memory import ran_out
from engine.run import Context
from engine.training.fit import Fit, fit
from engine.training.plan import Loss, Plan
from tests.engine.training.test_fit import Noisy, order, trace
from tests.engine.training.test_resume import notes

MESSAGES = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    MemoryError(),
]


class Small(Noisy):
    """Has room for so many clips from some step on; its norm counts the clips that have passed, as batch norms do."""

    def __init__(self, room: int, since: int, error: Exception) -> None:
        super().__init__()
        self.room, self.since, self.error = room, since, error
        self.net[1].p = 0.0
        self.register_buffer("passed", torch.zeros(()))
        self.now = 0

    def begin(self, step: int, steps: int) -> None:
        self.now = step

    def forward(self, clips: Tensor) -> Loss:
        self.get_buffer("passed").add_(len(clips))
        if self.now >= self.since and len(clips) > self.room:
            raise self.error
        return Loss.mean((self.net(clips)[:, 0] - clips.sum(1)).square())


def load(clips: list[int], step: int) -> Tensor:
    return torch.stack([torch.randn(4, generator=torch.Generator().manual_seed(clip)) for clip in clips])


def learn(folder: Path, module: Small, stop: int = 100, **changes: object) -> Fit:
    folder.mkdir(exist_ok=True)

    def asked() -> None:
        if len(trace(folder)) >= stop:
            raise Interrupted("enough")

    plan = Plan(**{"steps": 20, "rate": 1e-2, "checkpoint_every": 7, **changes})  # type: ignore[arg-type]
    return fit(module, order, load, plan, Context(folder, device="cpu", stop=asked))


def losses(folder: Path) -> list[float]:
    return [float.fromhex(values["loss"]) for values in trace(folder).values()]


@pytest.mark.parametrize("error", MESSAGES, ids=lambda error: type(error).__name__)
def test_the_step_is_done_again_in_more_parts(tmp_path: Path, error: Exception) -> None:
    plain, small = Small(8, 0, error), Small(3, 5, error)
    learn(tmp_path / "plain", plain)
    learn(tmp_path / "small", small)
    assert losses(tmp_path / "small") == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)
    assert losses(tmp_path / "small")[:5] == losses(tmp_path / "plain")[:5]
    # 8 clips in 2 parts are 4 each, which is still too much; in 4 parts they fit. What failed has left no trace.
    said = "Memory ran out at step 6: from here each batch is computed in {} parts"
    assert [note.partition(",")[0] for note in notes(tmp_path / "small")] == [said.format(2), said.format(4)]
    assert small.get_buffer("passed") == plain.get_buffer("passed") == 160


def test_a_resumed_training_remembers_in_how_many_parts(tmp_path: Path) -> None:
    error = MESSAGES[0]
    learn(tmp_path / "whole", Small(4, 5, error))
    with pytest.raises(Interrupted):
        learn(tmp_path / "torn", Small(4, 5, error), stop=9)
    learn(tmp_path / "torn", Small(4, 5, error))
    assert trace(tmp_path / "torn") == trace(tmp_path / "whole")
    assert len(notes(tmp_path / "torn")) == 1


def test_what_cannot_be_parted_further_is_refused_with_what_to_change(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="not enough memory for step 6, even in 8 parts. Choose a smaller network"):
        learn(tmp_path / "none", Small(0, 5, MESSAGES[0]))
    assert len(notes(tmp_path / "none")) == 3


def test_other_errors_are_no_lack_of_memory(tmp_path: Path) -> None:
    assert not ran_out(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        learn(tmp_path, Small(0, 5, RuntimeError("mat1 and mat2 shapes cannot be multiplied")))
