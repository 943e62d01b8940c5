"""What Mockingjay, TERA and their kin share: the loss falls, company changes nothing, only what was altered counts."""

from pathlib import Path

import pytest
import torch

from app import workbench
from engine.nets.masking import alter_each, stretch
from engine.objectives.reconstruction import Reconstruction
from engine.pretext import Batch
from engine.pretexts.mockingjay import Mockingjay
from engine.pretexts.tera import Tera
from engine.run import Context

SIZES = {"features": "mel", "reduce": 2, "blocks": 2, "width": 32, "heads": 2, "inner": 64, "dropout": 0.0}
TINY = {**SIZES, "corpus": "spoken:digits?voices=4", "steps": 30, "batch_seconds": 6, "rate": 0.005, "validate_every": 30}
KIN = ["audio_albert", "mpc", "spec_augment", "tera"]


def objective(name: str, **settings: object) -> Reconstruction:
    torch.manual_seed(0)
    spec = workbench.resolve({"run": name, **SIZES, **settings})
    made = spec.objective(spec.network(), None)  # type: ignore[attr-defined]
    assert isinstance(made, Reconstruction)
    return made


def clips(*frames: int, channels: int = 160) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count, channels, generator=generator) for count in frames]


def batch(sounds: list[torch.Tensor], seeds: list[int]) -> Batch:
    return Batch([(sound,) for sound in sounds], list(range(len(sounds))), seeds)


@pytest.mark.parametrize("name", KIN)
def test_the_loss_falls(name: str, workspace: Path) -> None:
    result = workbench.resolve({"run": name, **TINY}).run(Context(workspace, device="cpu"))
    assert result.facts["last_valid_loss"] < 0.95 * result.facts["first_loss"]


@pytest.mark.parametrize("name", KIN)
@torch.no_grad()
def test_company_changes_nothing(name: str) -> None:
    made = objective(name).eval()
    sounds, seeds = clips(20, 31, 57), [5, 6, 7]
    together = made(batch(sounds, seeds))
    alone = [made(batch([sound], [seed])) for sound, seed in zip(sounds, seeds, strict=True)]
    assert float(together.total) == pytest.approx(sum(float(loss.total) for loss in alone), rel=1e-5)
    assert together.count == sum(loss.count for loss in alone)


@pytest.mark.parametrize("name", KIN)
@torch.no_grad()
def test_only_what_is_compared_matters(name: str) -> None:
    """The target may be anything where nothing is compared, and where it is compared it counts."""
    made = objective(name).eval()
    sound = clips(40)[0]
    given = batch([sound], [3])
    [hidden] = made.hides(given)
    seen, counted = made.altered(sound, hidden, given.generators(1)[0])
    counted = counted.expand_as(sound)
    assert torch.equal(seen[~counted], sound[~counted]), "what is not to be guessed was altered"
    guess = made.head(made.network.contextual(made.network.projected(seen), [40])[-1])
    loss = made(given)
    assert loss.count == int(counted.sum())
    assert float(loss.total) == pytest.approx(float((guess - sound)[counted].abs().sum()), rel=1e-5)


def test_a_shared_block_is_kept_once() -> None:
    alike, apart = objective("audio_albert", blocks=4), objective("mockingjay", blocks=4)
    assert len(alike.network.transformer.blocks) == 1 and len(apart.network.transformer.blocks) == 4
    states = alike.network.contextual(torch.randn(9, 32), [9])
    assert len(states) == 5
    again, _ = alike.network.transformer.blocks[0](states[2][None], None, False)
    assert torch.allclose(again[0], states[3], atol=1e-6)


def test_chunks_are_hidden_one_by_one_each_with_a_die_of_its_own() -> None:
    made = objective("mpc")
    generator = torch.Generator().manual_seed(0)
    x = torch.arange(1.0, 201.0)[:, None]
    zero = same = chosen = 0
    mixed = 0
    for _ in range(500):
        hidden = made.hidden(200, generator)
        assert int(hidden.sum()) == 30
        seen = alter_each(x, hidden, generator)
        assert torch.equal(seen[~hidden], x[~hidden])
        chosen += 30
        zero += int((seen[hidden] == 0).sum())
        same += int((seen[hidden] == x[hidden]).sum())
        mixed += 0 < int((seen[hidden] == 0).sum()) < 30
    assert abs(zero / chosen - 0.8) < 0.01 and abs(same / chosen - 0.1) < 0.01
    assert mixed > 490


def test_stretches_are_of_every_width_and_anywhere() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [stretch(10, 3, generator) for _ in range(4000)]
    widths = torch.tensor([part.stop - part.start for part in drawn])
    assert torch.allclose(widths.bincount().float() / 4000, torch.full((4,), 0.25), atol=0.03)
    assert {part.start for part in drawn if part.stop - part.start == 3} == set(range(8))
    assert max(part.stop for part in drawn) == 10 and stretch(2, 100, generator).stop <= 2


def test_spec_augment_hides_stretches_and_bands_of_zeros() -> None:
    made = objective("spec_augment", longest=12, widest=9)
    generator = torch.Generator().manual_seed(1)
    longest = widest = 0
    for _ in range(200):
        hidden = made.hidden(60, generator)
        seen, counted = made.altered(torch.ones(60, 160), hidden, generator)
        assert torch.equal(seen, (~counted).float())  # all that is hidden is zero, and nothing else
        in_time = counted.all(1)
        assert torch.equal(in_time, hidden)
        in_band = counted[~in_time][0]
        assert torch.equal(in_band[:80], in_band[80:])  # both stacked frames lose the same channels
        longest, widest = max(longest, int(hidden.sum())), max(widest, int(in_band[:80].sum()))
    assert 12 < longest <= 24 and 9 < widest <= 18
    assert int(objective("spec_augment", longest=1000, most=0.1, stretches=1).hidden(100, generator).sum()) <= 10


def test_mockingjays_spec_and_teras_have_the_published_numbers() -> None:
    mockingjay, tera = Mockingjay(), Tera()
    assert (mockingjay.blocks, mockingjay.width, mockingjay.heads, mockingjay.inner) == (3, 768, 12, 3072)
    for spec in (mockingjay, tera):
        assert (spec.share, spec.span, spec.rate, spec.warm_up, spec.steps, spec.clip) == (0.15, 7, 2e-4, 0.07, 10**6, 5.0)
    assert (tera.band, tera.noise, tera.loudness, tera.features) == (0.2, 0.0, 0.2, "mel")
