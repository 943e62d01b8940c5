"""BEST-RQ: its codes are those of a projection and a codebook that never move, and noise stands where frames are hidden."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from app import workbench
from engine.job import JobStore
from engine.nets.masking import runs
from engine.pretext import Batch
from engine.pretexts.best_rq import BestRq, GuessingCodes
from engine.run import Context

TINY = {
    "corpus": "spoken:digits?voices=4",
    "steps": 24,
    "batch_seconds": 8,
    "rate": 0.005,
    "reduce": 2,
    "blocks": 2,
    "width": 32,
    "heads": 2,
    "inner": 64,
    "dropout": 0.0,
    "entries": 64,
    "chance": 0.1,
    "span": 4,
    "validate_every": 100,
}


def spec(**changes: object) -> BestRq:
    found = workbench.resolve({"run": "best_rq", **TINY, **changes})
    assert isinstance(found, BestRq)
    return found


def objective(**changes: object) -> GuessingCodes:
    chosen = spec(**changes)
    return GuessingCodes(chosen, chosen.network())


def noise(seconds: float, seed: int) -> Tensor:
    return torch.randn(int(16000 * seconds), generator=torch.Generator().manual_seed(seed)) * 0.1


def test_it_learns(workspace: Path) -> None:
    job = JobStore().submit(spec().document)
    result = spec().run(Context(job.folder, device="cpu"))
    assert result.facts["last_loss"] < 0.8 * result.facts["first_loss"]


def test_the_codes_by_hand() -> None:
    made = objective()
    features = made.network.local([noise(1, 0)])[0]
    assert features.shape == (50, 160)
    x = (features - features.mean(0)) / features.std(0) @ made.projection
    distances = torch.cdist(x / x.norm(dim=1, keepdim=True), made.words)
    codes = made.codes(features)
    assert torch.equal(codes, distances.argmin(1)) and len(codes.unique()) > 10
    torch.testing.assert_close(made.words.norm(dim=1), torch.ones(64))
    assert float(made.projection.abs().max()) <= (6 / (160 + 16)) ** 0.5
    # Louder sound has the same codes, for features are normalised over the clip.
    assert torch.equal(made.codes(features * 3 + 1), codes)


def test_the_codebook_follows_the_seed_and_never_moves() -> None:
    made, again, other = objective(), objective(), objective(seed=1)
    assert torch.equal(made.words, again.words) and torch.equal(made.projection, again.projection)
    assert not torch.equal(made.words, other.words)
    assert {"words", "projection"}.isdisjoint(dict(made.named_parameters()))
    assert {"words", "projection"} <= set(made.state_dict())


@torch.no_grad()
def test_only_hidden_frames_count_and_noise_stands_in_their_place() -> None:
    made = objective().eval()
    clips = [made.prepare(noise(seconds, 3)) for seconds in (0.8, 1.2)]
    batch = Batch(clips, [0, 1], [11, 12])
    loss = made(batch)
    by_hand, count = 0.0, 0
    for (features, codes), first, second in zip(clips, batch.generators(), batch.generators(1), strict=True):
        hidden = runs(len(features), 0.1, 4, first)
        seen = features.clone()
        seen[hidden] = 0.1 * torch.randn(int(hidden.sum()), 160, generator=second)
        state = made.network.contextual(made.network.projected(seen), [len(seen)])[-1]
        by_hand += float(functional.cross_entropy(made.scores(state)[hidden], codes[hidden], reduction="sum"))
        count += int(hidden.sum())
    assert float(loss.total) == pytest.approx(by_hand, rel=1e-4) and loss.count == count


def test_hidden_frames_cannot_be_seen() -> None:
    """What stands at hidden frames before noise takes their place has no way into the loss."""
    made = objective().eval()
    features, codes = made.prepare(noise(1, 4))
    hidden = made.hides(Batch([(features, codes)], [0], [5]))[0]
    changed = features.clone()
    changed[hidden] += 100
    one, two = (float(made(Batch([(x, codes)], [0], [5])).total.detach()) for x in (features, changed))
    assert one == two
