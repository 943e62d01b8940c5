"""PASE+: what a batch is made of, what is guessed of it, and weights that a pretext selection has found."""

import math
from pathlib import Path

import pytest
import torch

from app import workbench
from engine import acoustics, corpus, upstream
from engine.audio import SAMPLE_RATE
from engine.errors import Refused
from engine.job import JobStore
from engine.pretext import Batch, Before, Sound
from engine.pretexts.pase import Pase, Tasks
from engine.run import Context
from engine.training.plan import Loss
from probing.stats import hsic

TINY = {
    "run": "pase",
    "corpus": "spoken:digits?voices=4&takes=1",
    "spectra": ["mel-raw"],
    "pseudo_labels": ["loudness", "pitch"],
    "steps": 12,
    "batch_seconds": 3,
    "chunk": 0.5,
    "rate": 0.003,
    "channels": 4,
    "width": 16,
    "hidden": 16,
    "checkpoint_every": 100,
    "validate_every": 100,
}


def spec(**other: object) -> Pase:
    made = workbench.resolve({**TINY, **other})
    assert isinstance(made, Pase)
    return made


def prepared(ctx: Context, **other: object) -> tuple[Tasks, Batch]:
    """An untrained objective, and a batch of three clips, the last shorter than a chunk."""
    asked = spec(**other)
    sound = Sound([u for u in corpus.find(asked.corpus).utterances()][:12], 0.1)
    torch.manual_seed(0)
    objective = asked.objective(asked.network(), Before(sound, ctx, 0, None))
    assert isinstance(objective, Tasks)
    clips = [objective.prepare(wave) for wave in (sound.wave(0), sound.wave(1), sound.wave(2)[:6000])]
    return objective, Batch(clips, [0, 1, 2], [5, 6, 7])


@pytest.fixture
def ctx(workspace: Path) -> Context:
    return Context(workspace, device="cpu")


def test_it_learns_and_is_found_again(workspace: Path) -> None:
    job = JobStore().submit(spec(pseudo_labels=["loudness"]).document)
    result = workbench.resolve(job.document).run(Context(job.folder, device="cpu"))
    result.save(job.result_file)
    assert result.facts["last_valid_loss"] < 0.97 * result.facts["first_loss"]
    found = upstream.load(f"job:{job.id}")
    assert found.card.hop == 160 and found.card.dims == (32, 16)
    states = found.encode([torch.randn(8000, generator=torch.Generator().manual_seed(0)) * 0.1]).states
    assert states[1].shape == (1, 50, 16)
    assert {"mel_error", "samples_error", "loudness_error"} <= set(result.table[0])


@torch.no_grad()
def test_every_error_is_that_of_the_chunk(ctx: Context) -> None:
    objective, batch = prepared(ctx, weights="pitch 0.5")
    assert objective.standard is not None and objective.samples is not None and objective.labels is not None
    loss = objective(batch)
    by_hand, count = 0.0, 0
    for (wave, features, labels), draw in zip(batch.clips, batch.generators(), strict=True):
        frames = min(50, len(features))
        start = int(torch.randint(len(features) - frames + 1, (), generator=draw))
        assert len(features) == len(labels) == len(wave) // 160
        whole = frames == len(features)
        heard = wave if whole else wave[160 * start : 160 * (start + frames)]
        state = objective.network([heard], False).states[1][0, :frames]
        mel = (features[start : start + frames] - objective.standard.mean) / objective.standard.deviation
        by_hand += float((objective.heads[0](state) - mel).square().mean(1).sum())
        cut = wave[160 * start : 160 * (start + frames)].view(frames, 160)
        by_hand += float((objective.samples(state) - cut).abs().mean(1).sum())
        wanted = objective.labels.standard(labels[start : start + frames])
        errors = (objective.labels.head(state) - wanted).square() * torch.tensor([1.0, 0.5])
        by_hand += float(errors[wanted.isfinite()].sum())
        count += frames
    assert float(loss.total) == pytest.approx(by_hand, rel=1e-4) and loss.count == count


def test_targets_belong_to_the_frames_that_hear_them(ctx: Context) -> None:
    """The loudness of a frame is that of the sound at its place, also in a chunk."""
    objective, batch = prepared(ctx)
    wave, _, labels = batch.clips[0]
    track = acoustics.tracks(wave, ["loudness"])["loudness"]
    assert torch.allclose(labels[:, 0], track[: len(labels)], atol=1e-5)
    assert objective.network.frames(len(wave)) >= len(labels) >= len(wave) / SAMPLE_RATE * 100 - 1


@torch.no_grad()
def test_company_and_order_change_no_loss(ctx: Context) -> None:
    objective, batch = prepared(ctx)
    whole = objective(batch)
    alone = [objective(Batch([batch.clips[i]], [i], [batch.seeds[i]])) for i in (2, 0, 1)]
    assert float(whole.total) == pytest.approx(sum(float(loss.total) for loss in alone), rel=1e-5)
    assert whole.count == sum(loss.count for loss in alone)


def test_a_gradient_reaches_the_bands_from_each_task(ctx: Context) -> None:
    for left in ({"spectra": ["mel-raw"]}, {"samples": True}, {"pseudo_labels": ["loudness"]}):
        objective, batch = prepared(ctx, **{"spectra": [], "samples": False, "pseudo_labels": [], **left})
        loss: Loss = objective(batch)
        loss.total.backward()
        assert objective.network.bands.low.grad is not None
        assert 0 < float(objective.network.bands.low.grad.abs().sum()) < math.inf


def test_weights_are_those_that_the_selection_finds_for_the_toy(ctx: Context) -> None:
    """From sound to kernels to weights to this training: nothing is lost on the way."""
    names = ["loudness", "zero crossings"]
    chosen = {
        "run": "pretext_selection",
        "corpus": "spoken:digits?voices=8&takes=1",
        "pseudo_labels": ["zero crossings", "loudness"],
        "centering": "zaiem",
        "least": 3,
        "most": 8,
        "classes": 2,
    }
    job = JobStore().submit(chosen)
    result = workbench.resolve(chosen).run(Context(job.folder, device="cpu"))
    result.save(job.result_file)
    for by in ("softmax", "sparsemax"):
        shares = spec(pseudo_labels=names, weights=f"job:{job.id}", weighed_by=by).shares()
        assert shares == {name: result.facts["weights"][by][name] for name in names}
        assert sum(shares.values()) == pytest.approx(1.0)
    objective, _ = prepared(ctx, pseudo_labels=names, weights=f"job:{job.id}")
    assert objective.labels is not None
    assert objective.labels.weights == tuple(result.facts["weights"]["sparsemax"][name] for name in names)


def test_the_toy_of_the_selection_by_hand() -> None:
    """A description that is the sound itself gets no weight beside one that has nothing of it (see the tests of HSIC)."""
    pairs = torch.block_diag(torch.ones(2, 2), torch.ones(2, 2)).double()
    order = [0, 2, 1, 3]
    across = pairs[order][:, order]
    found = hsic.weights([pairs], [[pairs], [across]], by="sparsemax")
    assert found.values.tolist() == pytest.approx([0.0, 1.0], abs=1e-6)
    assert hsic.sparsemax(torch.tensor([0.6, 0.1, -3.0])).tolist() == pytest.approx([0.75, 0.25, 0.0])


def test_what_does_not_fit_is_said(workspace: Path) -> None:
    slower = next(card.name for card in upstream.cards() if card.source == "built in" and card.hop == 320)
    assert spec(spectra=["mel-raw", slower]).needs() == [
        f"{slower} gives a frame each 20 ms, but this network one each 10 ms: choose other spectra."
    ]
    assert spec(spectra=[], pseudo_labels=[], samples=False).needs()[0].startswith("There is nothing to guess")
    assert "no job called 'gone'" in spec(weights="job:gone").needs()[0]
    with pytest.raises(Refused, match="'rasta', which is not among"):
        spec(weights="rasta 2")
    with pytest.raises(Refused, match="not a pseudo-label and a number"):
        spec(weights="pitch much")
