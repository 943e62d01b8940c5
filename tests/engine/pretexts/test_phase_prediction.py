"""Phase prediction: the angle of a tone is known; the loss is that of a perfect and of the worst guess."""

import math
from pathlib import Path

import pytest
import torch

from app import workbench
from engine.pretext import Batch
from engine.pretexts.phase_prediction import PhasePrediction, Turns, turns
from engine.run import Context

SIZES = {"blocks": 1, "width": 16, "heads": 2, "inner": 32, "dropout": 0.0, "reduce": 2}


def test_the_loss_falls(workspace: Path) -> None:
    settings = {"corpus": "spoken:digits?voices=4", "steps": 30, "batch_seconds": 6, "rate": 0.005, "validate_every": 30}
    spec = workbench.resolve({"run": "phase_prediction", **SIZES, "width": 32, **settings})
    result = spec.run(Context(workspace, device="cpu"))
    assert result.facts["last_valid_loss"] < 0.95 * result.facts["first_loss"]


@pytest.mark.parametrize(("hertz", "bin"), [(1000.0, 25), (985.0, 25), (1045.0, 26), (2910.0, 73)])
def test_the_angle_of_a_tone(hertz: float, bin: int) -> None:
    """A tone of f Hz moves on by 2 pi f * 10 ms, its bin by that of 40 Hz times its number: whole turns for bin 25 alone."""
    wave = torch.sin(2 * math.pi * hertz * torch.arange(8000, dtype=torch.float64) / 16_000).float()
    angle, weight = turns(wave)
    expected = 2 * math.pi * (hertz - 40 * bin) * 0.01
    inside = angle[3:-3, bin]  # the mirrored ends hold no tone
    assert torch.allclose(inside, torch.full_like(inside, math.remainder(expected, 2 * math.pi)), atol=2e-3)
    assert (
        int(weight[10].argmax()) == bin
        and bool((weight[0] == 0).all())
        and float(weight.mean()) == pytest.approx(1, rel=1e-4)
    )


@torch.no_grad()
def test_a_perfect_guess_costs_nothing_and_the_opposite_two() -> None:
    spec = PhasePrediction(**SIZES)  # type: ignore[arg-type]
    made = spec.objective(spec.network(), None)  # type: ignore[arg-type]
    assert isinstance(made, Turns)
    prepared = made.prepare(torch.randn(4000) * 0.1)
    assert {tuple(part.shape) for part in prepared} == {(13, 402)}
    local, _, weight = prepared
    torch.nn.init.zeros_(made.head.weight)
    angle = torch.full_like(local, 0.7)
    made.head.bias.copy_(torch.cat([torch.full((402,), math.cos(0.7)), torch.full((402,), math.sin(0.7))]))
    for guessed, cost in ((angle, 0.0), (angle + math.pi, 2.0), (angle + math.pi / 2, 1.0)):
        loss = made(Batch([(local, guessed, weight)], [0], [0]))
        assert float(loss.total) / loss.count == pytest.approx(cost, abs=1e-5)


@torch.no_grad()
def test_company_changes_nothing_and_silence_counts_nothing() -> None:
    spec = PhasePrediction(**SIZES)  # type: ignore[arg-type]
    made = spec.objective(spec.network(), None).eval()  # type: ignore[arg-type]
    clips = [made.prepare(torch.randn(count) * 0.1) for count in (3000, 8000)]
    together = made(Batch(clips, [0, 1], [0, 1]))
    alone = [made(Batch([clip], [0], [0])) for clip in clips]
    assert float(together.total) == pytest.approx(sum(float(loss.total) for loss in alone), rel=1e-4)
    assert together.count == pytest.approx(sum(loss.count for loss in alone), rel=1e-6)
    silent = made(Batch([made.prepare(torch.zeros(4000))], [0], [0]))
    assert float(silent.total) == 0 and silent.count > 0
