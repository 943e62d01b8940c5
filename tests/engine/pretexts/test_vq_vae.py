"""VQ-VAE: what passes the codebook and what is told from it, by hand; entries follow, none is left over, and it learns."""

import pytest
import torch
from learning import batch, learnt

from app import workbench
from engine import upstream
from engine.nets.clips import convolved
from engine.pretexts.vq_vae import Retelling, VqVae, neighbours

SIZES = {"width": 16, "convolutions": 2, "linears": 1, "word": 4, "codebook": 8}


def retelling(**settings: object) -> Retelling:
    torch.manual_seed(0)
    spec = VqVae(**{**SIZES, **settings})  # type: ignore[arg-type]
    made = spec.objective(spec.network(), None)  # type: ignore[arg-type]
    assert isinstance(made, Retelling)
    return made


def clip(frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(frames, 78), torch.randn(frames, 480)


def test_clips_side_by_side_are_convolved_as_if_alone() -> None:
    layer = torch.nn.Conv1d(3, 5, 5, padding=2)
    clips = [torch.randn(frames, 3) for frames in (9, 4, 1)]
    alone = torch.cat([layer(clip.T[None])[0].T for clip in clips])
    torch.testing.assert_close(convolved(layer, torch.cat(clips), [9, 4, 1]), alone)


def test_two_frames_of_both_features_are_one() -> None:
    made = retelling()
    wave = 0.1 * torch.randn(16_000)
    given, told = made.prepare(wave)
    mfcc, fbank = (upstream.load(name).encode([wave]).clip(0)[0] for name in ("mfcc", "fbank"))
    assert given.shape == (49, 78) and told.shape == (49, 480)
    torch.testing.assert_close(given[3], torch.cat([mfcc[6], mfcc[7]]))
    torch.testing.assert_close(told[3], torch.cat([fbank[6], fbank[7]]))


@torch.no_grad()
def test_the_loss_by_hand_and_in_company() -> None:
    made = retelling(commitment=0.5).eval()
    clips = [clip(frames) for frames in (20, 7)]
    whole = made(batch(*clips))
    by_hand = 0.0
    for given, told in clips:
        vectors = made.network.states([given])[-1]
        entries = made.network.codebook.vectors[0]
        words = entries[torch.cdist(vectors, entries).argmin(dim=1)]
        by_hand += float((made.retold(words, [len(given)]) - told).square().mean() * told.numel())
        by_hand += 0.5 * float((vectors - words).square().mean() * told.numel())
    assert whole.count == 27 * 480
    assert float(whole.total) == pytest.approx(by_hand, rel=1e-4)


def test_the_gradient_passes_the_codebook_and_entries_follow_only_at_a_step() -> None:
    made = retelling()
    before = made.network.codebook.vectors.clone()
    made(batch(clip(20), clip(7))).total.backward()
    assert all(bool(weight.grad is not None and weight.grad.abs().sum() > 0) for weight in made.parameters())
    assert torch.equal(made.network.codebook.vectors, before)
    made.stepped()
    assert not torch.equal(made.network.codebook.vectors, before)
    assert all(name in made.network.state_dict() for name in ("codebook.vectors", "codebook.counts", "codebook.sums"))


def test_words_are_swapped_for_those_beside_them_with_their_share() -> None:
    counts = torch.zeros(3)
    for seed in range(400):
        shift = neighbours(100, 0.12, torch.Generator().manual_seed(seed)) - torch.arange(100)
        counts += torch.stack([(shift == by).sum() for by in (-1, 0, 1)])
        assert int(shift.abs().max()) <= 1 and int(shift[0]) >= 0 and int(shift[-1]) <= 0
    torch.testing.assert_close(counts / 40_000, torch.tensor([0.06, 0.88, 0.06]), atol=0.005, rtol=0)


def test_a_codebook_that_has_collapsed_is_said_once_it_had_time_to_settle() -> None:
    made = retelling()
    made.begin(1, 100)
    assert made.unwell({"perplexity": 1.0}) == ""
    made.begin(5, 100)
    assert "the same of its 8 entries (perplexity 1.00)" in made.unwell({"perplexity": 1.0})
    assert made.unwell({"perplexity": 5.0}) == ""


def test_frames_that_do_not_fit_are_said() -> None:
    reasons = workbench.resolve({"run": "vq_vae", "target": "hubert-small"}).needs()
    assert any("have frames of different lengths" in reason for reason in reasons)


def test_it_learns_uses_its_words_and_is_found_with_them() -> None:
    job, result = learnt("vq_vae", steps=50, validate_every=25, **{**SIZES, "codebook": 16, "width": 32})
    assert result.facts["last_valid_loss"] < 0.75 * result.facts["first_loss"]
    assert float(result.table[-1]["perplexity"] or 0) > 6
    wave = torch.randn(8000, generator=torch.Generator().manual_seed(0)) * 0.1
    found = upstream.load(f"job:{job.id}")
    assert [state.shape for state in found.encode([wave]).clip(0)] == [(24, 32), (24, 32), (24, 32), (24, 4)]
    codes = found.tap([wave], "codes")["codes"][0]
    assert codes.shape == (24, 1) and int(codes.max()) < 16
