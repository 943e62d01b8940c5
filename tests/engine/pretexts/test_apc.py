"""APC and VQ-APC: which frame is told from which, what passes the codebook, and that both learn."""

import pytest
import torch
from learning import batch, learnt

from engine import upstream
from engine.objectives.autoregression import Prediction
from engine.pretexts.apc import APC
from engine.pretexts.vq_apc import VqApc

SIZES = {"layers": 2, "width": 16, "dropout": 0.0}


def prediction(kind: type[APC] | type[VqApc] = APC, **settings: object) -> Prediction:
    torch.manual_seed(0)
    spec = kind(**{**SIZES, **settings})  # type: ignore[arg-type]
    made = spec.objective(spec.network(), None)  # type: ignore[arg-type]
    assert isinstance(made, Prediction)
    return made


@torch.no_grad()
def test_the_frame_that_is_told_comes_exactly_so_many_frames_later() -> None:
    """Frame t of each clip is t throughout. A state that says t + 5 makes no error, one that says t + 4 an error of one."""
    made = prediction(ahead=5)
    made.head.weight.zero_()[:, 0] = 1
    made.head.bias.zero_()
    lengths = (12, 9, 5, 3)  # the last two are too short for a frame to come
    clips = [torch.arange(float(frames))[:, None].expand(-1, 80) for frames in lengths]
    for said, error in ((5, 0.0), (4, 1.0), (7, 2.0)):
        states = [(torch.arange(float(frames)) + said)[:, None].expand(-1, 16) for frames in lengths]
        loss = made.of_future(clips, states)
        assert loss.count == (7 + 4) * 80
        assert float(loss.total) == error * loss.count


def test_no_state_hears_what_comes_later() -> None:
    made = prediction()
    clip = torch.randn(20, 80, requires_grad=True)
    last = made.last([torch.randn(9, 80), clip])[1]
    last[7].sum().backward()
    assert clip.grad is not None
    assert bool((clip.grad[8:] == 0).all()) and bool((clip.grad[:8] != 0).any(dim=1).all())


@pytest.mark.parametrize("kind", [APC, VqApc])
@torch.no_grad()
def test_a_clip_costs_the_same_alone_and_in_company(kind: type[APC] | type[VqApc]) -> None:
    made = prediction(kind).eval()
    clips = [torch.randn(frames, 80) for frames in (30, 11, 22)]
    whole = made(batch(*clips))
    alone = [made(batch(clip, first=number)) for number, clip in enumerate(clips)]
    assert whole.count == sum(loss.count for loss in alone)
    assert float(whole.total) == pytest.approx(sum(float(loss.total) for loss in alone), rel=1e-5)


@torch.no_grad()
def test_what_is_told_is_told_from_the_word_of_the_highest_score() -> None:
    made = prediction(VqApc, codebook=6).eval()
    clip = torch.randn(15, 80)
    last = made.last([clip])[0][:-5]
    assert made.network.quantizer is not None and made.words is not None
    codes = (last @ made.network.quantizer.scores[0].weight.T + made.network.quantizer.scores[0].bias).argmax(dim=1)
    guess = made.head(made.words.books[0].weight.T[codes])
    loss = made(batch(clip))
    assert float(loss.total) == pytest.approx(float((guess - clip[5:]).abs().sum()), rel=1e-5)
    share = torch.bincount(codes, minlength=6) / len(codes)
    assert float(loss.shown["perplexity"]) == pytest.approx(float(torch.special.entr(share).sum().exp()), rel=1e-5)


def test_the_gradient_passes_the_codebook() -> None:
    made = prediction(VqApc, codebook=6)
    made(batch(torch.randn(25, 80), torch.randn(18, 80))).total.backward()
    assert all(bool(weight.grad is not None and weight.grad.abs().sum() > 0) for weight in made.parameters())


def test_a_codebook_that_has_collapsed_is_said() -> None:
    made = prediction(VqApc)
    assert "of its 512 entries (perplexity 1.10)" in made.unwell({"loss": 0.4, "perplexity": 1.1})
    assert made.unwell({"loss": 0.4, "perplexity": 30.0}) == "" == prediction().unwell({"loss": 0.4})


def test_both_learn_and_are_found_with_their_codes() -> None:
    wave = torch.randn(8000, generator=torch.Generator().manual_seed(0)) * 0.1
    _, plain = learnt("apc", steps=30, validate_every=15, **SIZES)
    assert plain.facts["last_valid_loss"] < 0.75 * plain.facts["first_loss"]
    job, worded = learnt("vq_apc", steps=40, validate_every=20, codebook=16, **SIZES)
    assert worded.facts["last_valid_loss"] < 0.9 * worded.facts["first_loss"]
    assert float(worded.table[-1]["perplexity"] or 0) > 1.7  # sound and silence at least
    found = upstream.load(f"job:{job.id}")
    states = found.encode([wave]).clip(0)
    assert [state.shape for state in states] == [(48, 80), (48, 16), (48, 16)]
    codes = found.tap([wave], "codes")["codes"][0]
    assert codes.shape == (48, 1) and int(codes.max()) < 16
