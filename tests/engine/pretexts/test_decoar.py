"""DeCoAR: which frames a guess may have heard, what it is compared with, and that company changes nothing."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from app import workbench
from engine.pretext import Batch
from engine.pretexts.decoar import DecoarPretext, Slices
from engine.run import Context

SIZES = {"layers": 2, "width": 12, "span": 3, "inner": 8}


@pytest.fixture
def slices() -> Slices:
    torch.manual_seed(0)
    spec = DecoarPretext(**SIZES)  # type: ignore[arg-type]
    made = spec.objective(spec.network(), None)  # type: ignore[arg-type]
    assert isinstance(made, Slices)
    return made


def clips(*frames: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count, 80, generator=generator) for count in frames]


def batch(sounds: list[torch.Tensor]) -> Batch:
    return Batch([(sound,) for sound in sounds], list(range(len(sounds))), list(range(len(sounds))))


def test_the_loss_falls(workspace: Path) -> None:
    settings = {"corpus": "spoken:digits?voices=4", "steps": 40, "batch_seconds": 4, "rate": 0.02, "validate_every": 40}
    spec = workbench.resolve({"run": "decoar", "layers": 1, "width": 32, "span": 2, "inner": 32, **settings})
    result = spec.run(Context(workspace, device="cpu"))
    assert result.facts["last_valid_loss"] < 0.95 * result.facts["first_loss"]


def test_a_slice_is_guessed_without_its_inside(slices: Slices) -> None:
    """Slice 4 of 12 frames, frames 4 ... 7: its guess follows from frames 0 ... 4 and 7 ... 11, never from 5 and 6."""
    clip = clips(12)[0].requires_grad_()
    [(ahead, back)] = slices.network.sides([clip])
    guess = slices.guess(torch.cat([ahead[4], back[7]])[None])
    [slope] = torch.autograd.grad(guess.sum(), clip)
    felt = slope.abs().sum(1) > 0
    assert felt.tolist() == [True] * 5 + [False] * 2 + [True] * 5


@torch.no_grad()
def test_the_loss_by_hand(slices: Slices) -> None:
    sounds = clips(9, 14)
    loss = slices(batch(sounds))
    total, count = 0.0, 0
    for clip, (ahead, back) in zip(sounds, slices.network.sides(sounds), strict=True):
        for start in range(len(clip) - 3):
            around = torch.cat([ahead[start], back[start + 3]])
            for place in range(4):
                within = functional.relu(slices.first(around).view(4, 8)[place])
                guess = within @ slices.second[place] + slices.bias[place]
                total += float((guess - clip[start + place]).abs().sum())
                count += 80
    assert float(loss.total) == pytest.approx(total, rel=1e-5) and loss.count == count


@torch.no_grad()
def test_company_changes_nothing_and_the_stacks_are_the_upstreams(slices: Slices) -> None:
    sounds = clips(9, 25, 14)
    together = slices(batch(sounds))
    alone = [slices(batch([sound])) for sound in sounds]
    assert float(together.total) == pytest.approx(sum(float(loss.total) for loss in alone), rel=1e-5)
    assert together.count == sum(loss.count for loss in alone)
    waves = [torch.randn(count, generator=torch.Generator().manual_seed(count)) * 0.1 for count in (4000, 9000)]
    sides = slices.network.sides([slices.network.spectrum(wave) for wave in waves])
    hidden = slices.network.encode(waves)
    for index, (ahead, back) in enumerate(sides):
        assert torch.allclose(hidden.clip(index)[-1], torch.cat([ahead, back], dim=1), atol=1e-5)


@torch.no_grad()
def test_a_clip_that_is_shorter_than_a_slice_still_counts(slices: Slices) -> None:
    [spectrum] = slices.prepare(torch.randn(500) * 0.1)
    assert spectrum.shape == (4, 80) and bool((spectrum[1:] == 0).all())
    assert slices(batch([spectrum])).count == 4 * 80
