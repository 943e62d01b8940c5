"""Audio2Vec: which slice is guessed from which, by hand; no frame hears another slice."""

from pathlib import Path

import pytest
import torch

from app import workbench
from engine.pretext import Batch
from engine.pretexts.audio2vec import Audio2vec, Neighbours
from engine.run import Context

SIZES = {"blocks": 1, "width": 16, "heads": 2, "inner": 32, "dropout": 0.0, "span": 4, "neighbours": 2}
WAYS = ["skip-gram", "CBoW"]


def neighbours(way: str) -> Neighbours:
    torch.manual_seed(0)
    spec = Audio2vec(**SIZES, way=way)  # type: ignore[arg-type]
    made = spec.objective(spec.network(), None)  # type: ignore[arg-type]
    assert isinstance(made, Neighbours)
    return made.eval()


def batch(*sounds: torch.Tensor, seeds: tuple[int, ...] = (0, 1, 2)) -> Batch:
    return Batch([(sound,) for sound in sounds], list(range(len(sounds))), list(seeds[: len(sounds)]))


@pytest.mark.parametrize("way", WAYS)
def test_the_loss_falls(way: str, workspace: Path) -> None:
    settings = {"corpus": "spoken:digits?voices=4", "steps": 25, "batch_seconds": 6, "rate": 0.01, "validate_every": 25}
    result = workbench.resolve({"run": "audio2vec", **SIZES, "way": way, **settings}).run(Context(workspace, device="cpu"))
    assert result.facts["last_valid_loss"] < 0.95 * result.facts["first_loss"]


@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_the_loss_by_hand(way: str) -> None:
    made = neighbours(way)
    clip = torch.randn(14, 80)  # three slices of 4, which begin at frame 0, 1 or 2
    given = batch(clip)
    start = int(torch.randint(3, (), generator=given.generators()[0]))
    slices = [clip[start + 4 * number :][:4] for number in range(3)]
    vectors = [made.network.contextual(made.network.projected(each), [4])[-1].mean(0) for each in slices]
    total, count = 0.0, 0
    for number in range(3):
        around = [number - 2, number - 1, number + 1, number + 2]
        if way == "CBoW":
            told = torch.cat([vectors[at] if 0 <= at < 3 else torch.zeros(16) for at in around])
            total += float((made.decoder(told) - slices[number].flatten()).square().sum())
            count += 320
            continue
        guesses = made.decoder(vectors[number]).view(4, 320)
        for guess, at in zip(guesses, around, strict=True):
            if 0 <= at < 3:
                total += float((guess - slices[at].flatten()).square().sum())
                count += 320
    loss = made(given)
    assert float(loss.total) == pytest.approx(total, rel=1e-5) and loss.count == count


@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_company_changes_nothing(way: str) -> None:
    made = neighbours(way)
    sounds = [torch.randn(frames, 80) for frames in (8, 23, 41)]
    together = made(batch(*sounds))
    alone = [made(batch(sound, seeds=(seed,))) for seed, sound in enumerate(sounds)]
    assert float(together.total) == pytest.approx(sum(float(loss.total) for loss in alone), rel=1e-5)
    assert together.count == sum(loss.count for loss in alone)


def test_a_bag_never_hears_what_it_guesses() -> None:
    made = neighbours("CBoW")
    slices = torch.randn(3, 4, 80, requires_grad=True)
    x = made.network.projected(slices.flatten(0, 1))
    vectors = made.network.contextual(x, [4] * 3)[-1].view(3, 4, -1).mean(1)
    at, there = made.pairs([3])
    guess = made.decoder((vectors[at] * there[:, :, None]).flatten(1))
    [slope] = torch.autograd.grad(guess[1].sum(), slices)
    assert (slope.abs().sum((1, 2)) > 0).tolist() == [True, False, True]


def test_the_upstream_hears_no_further_than_a_slice() -> None:
    network = neighbours("skip-gram").network
    wave = torch.randn(160 * 15) * 0.1  # 16 frames of mel energies, four slices
    features = network.local([wave])[0]
    states = network.encode([wave]).clip(0)[-1]
    by_itself = network.contextual(network.projected(features[4:8]), [4])[-1]
    assert torch.allclose(states[4:8], by_itself, atol=1e-5)


def test_a_short_clip_is_two_slices() -> None:
    [local] = neighbours("CBoW").prepare(torch.randn(500) * 0.1)
    assert local.shape == (8, 80)
