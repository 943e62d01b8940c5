"""wav2vec 2.0: what the loss is made of, on clips small enough to do it by hand, and that a small network learns."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from app import workbench
from engine.errors import Refused
from engine.job import JobStore
from engine.nets.contrast import others
from engine.objectives.pseudo_labels import PseudoLabels
from engine.pretext import Batch
from engine.pretexts.wav2vec2 import Telling, Wav2vec2
from engine.run import Context

TINY: dict[str, Any] = {
    "corpus": "spoken:digits?voices=4",
    "front": "features",
    "features": "mel",
    "reduce": 2,
    "steps": 40,
    "batch_seconds": 6,
    "parts": 1,
    "rate": 0.002,
    "blocks": 1,
    "width": 32,
    "heads": 2,
    "inner": 64,
    "channels": 16,
    "dropout": 0.0,
    "layer_drop": 0.0,
    "chance": 0.1,
    "span": 4,
    "negatives": 12,
    "entries": 16,
    "target_width": 16,
    "validate_every": 20,
}


def telling(**settings: Any) -> Telling:
    torch.manual_seed(0)
    spec = Wav2vec2(**{**TINY, **settings})
    return Telling(spec, spec.network())


def batch_of(objective: Telling, *seconds: float) -> Batch:
    generator = torch.Generator().manual_seed(5)
    waves = [0.1 * torch.randn(int(16_000 * each), generator=generator) for each in seconds]
    with torch.no_grad():
        return Batch(
            [objective.prepare(wave) for wave in waves], list(range(len(waves))), [30 + i for i in range(len(waves))]
        )


def company(batch: Batch, *places: int) -> Batch:
    return Batch(*([each[place] for place in places] for each in (batch.clips, batch.numbers, batch.seeds)))  # type: ignore[arg-type]


@pytest.mark.parametrize("front", ["features", "waveform"])
def test_it_learns_and_its_words_stay_in_use(front: str, workspace: Path) -> None:
    waveform = {"steps": 20, "batch_seconds": 4, "rate": 0.003} if front == "waveform" else {}
    spec = workbench.resolve({"run": "wav2vec2", **TINY, "front": front, **waveform})
    lines = spec.run(Context(JobStore().submit(spec.document).folder, device="cpu")).table
    valid = [line for line in lines if line["split"] == "valid"]
    assert float(valid[-1]["loss"] or 0) < 0.9 * float(
        lines[0]["loss"] or 0
    )  # of the waveform, it is the penalty that falls
    assert float(valid[-1]["perplexity"] or 0) > 3
    if front == "features":
        assert float(valid[-1]["accuracy"] or 0) > 0.3 > 2 / 13  # of 12 others and itself


@pytest.mark.parametrize("front", ["features", "waveform"])
@torch.no_grad()
def test_the_loss_is_that_of_the_paper_on_frames_done_one_by_one(front: str) -> None:
    objective = telling(front=front, diversity=0.3, penalty=2.0).eval()
    network, spec = objective.network, objective.spec
    batch = batch_of(objective, 0.9, 1.3)
    loss = objective(batch)
    by_hand, right, count, likely, squares, numbers = 0.0, 0, 0, torch.zeros(2, 16), 0.0, 0
    for index, hidden in enumerate(objective.hides(batch)):
        clip = batch.part()[index]
        local = clip if front == "features" else network.local([clip])[0]
        squares, numbers = squares + float(local.square().sum()), numbers + local.numel()
        seen = network.projected(local)
        seen[hidden] = objective.mask
        context = objective.guess(network.contextual(seen, [len(local)])[-1][hidden])
        normed = local if front == "features" else network.projection_norm(local)  # type: ignore[operator]
        scores = objective.codes.scores(normed[hidden]).view(-1, 2, 16)
        likely += scores.softmax(2).sum(0)
        chosen = scores.argmax(2)
        words = [torch.cat([objective.codes.vectors[book, row[book]] for book in range(2)]) for row in chosen]
        targets = [objective.target(word) for word in words]
        rivals = others(len(targets), spec.negatives, batch.generators(1)[index])
        for frame, row in enumerate(rivals.tolist()):
            assert row[0] == frame not in row[1:]
            told = [float(functional.cosine_similarity(context[frame], targets[other], dim=0)) / 0.1 for other in row]
            kept = told[:1] + [
                each for each, other in zip(told[1:], row[1:], strict=True) if not torch.equal(chosen[other], chosen[frame])
            ]
            by_hand += math.log(sum(math.exp(each) for each in kept)) - kept[0]
            right += all(told[0] > each for each in kept[1:])
        count += len(targets)
    shares = likely / count
    spread = 1 - float(torch.special.entr(shares).sum(1).exp().sum()) / 32
    loud = 0.0 if front == "features" else squares / numbers
    assert loss.count == count and float(loss.shown["contrast"]) == pytest.approx(by_hand / count, rel=1e-4)
    assert float(loss.total) == pytest.approx(by_hand + count * (0.3 * spread + 2.0 * loud), rel=1e-4)
    assert float(loss.shown["accuracy"]) == pytest.approx(right / count, rel=1e-5)


@pytest.mark.parametrize("front", ["features", "waveform"])
@torch.no_grad()
def test_a_clip_costs_the_same_alone_and_in_company(front: str) -> None:
    objective = telling(front=front, diversity=0.0, penalty=0.0).eval()
    batch = batch_of(objective, 0.8, 1.2, 0.5)
    together = objective(batch)
    alone = [objective(company(batch, place)) for place in range(3)]
    assert float(together.total) == pytest.approx(sum(float(loss.total) for loss in alone), rel=1e-5)
    assert together.count == sum(loss.count for loss in alone)
    turned = objective(company(batch, 2, 0, 1))
    assert float(turned.total) == pytest.approx(float(together.total), rel=1e-5)


@torch.no_grad()
def test_what_is_hidden_is_not_seen() -> None:
    objective = telling().eval()
    batch = batch_of(objective, 1.5)
    hidden = objective.hides(batch)[0]
    clip = batch.part()[0]
    other = torch.where(hidden[:, None], torch.randn_like(clip), clip)
    first, second = (objective.network.contextual(objective.seen(each, hidden), [len(clip)])[-1] for each in (clip, other))
    assert torch.equal(first, second)
    assert 2 * 4 >= int(hidden.sum()) > 0 or int(hidden.sum()) >= 4


def test_the_gradient_of_the_convolutions_is_a_tenth() -> None:
    whole, tenth = telling(front="waveform", slope=1.0), telling(front="waveform")
    tenth.load_state_dict(whole.state_dict())
    batch = batch_of(whole, 0.8)
    for objective in (whole, tenth):
        torch.manual_seed(3)
        objective(batch).total.backward()
    for name, weight in whole.network.named_parameters():
        other = dict(tenth.network.named_parameters())[name].grad
        assert weight.grad is not None and other is not None
        factor = 0.1 if name.startswith("front.") else 1.0
        assert torch.allclose(other, factor * weight.grad, rtol=1e-4, atol=1e-6), name


def test_words_are_drawn_while_it_learns_and_ever_less_so() -> None:
    objective = telling(hot=2.0, cold=0.5, cooling=0.5)
    heats = []
    for step in (0, 25, 50, 99):
        objective.begin(step, 100)
        heats.append(objective.heat)
    assert heats == pytest.approx([2.0, 1.0, 0.5, 0.5])
    batch = batch_of(objective, 1.0)
    torch.manual_seed(0)
    with torch.no_grad():
        first = float(objective(batch).total)
        assert float(objective(batch).total) != first
        objective.eval()
        assert float(objective(batch).total) == float(objective(batch).total)


@torch.no_grad()
def test_labels_of_the_sound_count_as_they_are_weighed() -> None:
    class Clips:
        pieces = [type("Piece", (), {"seconds": 1.0})]

        def __len__(self) -> int:
            return 1

        def wave(self, number: int) -> torch.Tensor:
            time = torch.arange(16_000) / 16_000
            return 0.3 * torch.sin(2 * math.pi * 200 * time) * (1 + torch.sin(2 * math.pi * 3 * time))

    torch.manual_seed(0)
    spec = Wav2vec2(**TINY, pseudo_labels=("loudness", "zero crossings"), weights="loudness 3")
    network = spec.network()
    labels = PseudoLabels(spec.shares(), network.width, network.card.hop, Clips(), 0)  # type: ignore[arg-type]
    objective = Telling(spec, network, labels).eval()
    batch = batch_of(objective, 1.0, 0.7)
    assert all(len(features) == len(targets) for features, targets in batch.clips)
    with_labels = objective(batch)
    objective.labels = None
    without = objective(batch)
    errors = [float(with_labels.shown[f"{name}_error"]) for name in ("loudness", "zero_crossings")]
    more = float(with_labels.total - without.total) / without.count
    assert more == pytest.approx(3 * errors[0] + errors[1], rel=1e-4)


def test_it_says_when_its_words_fall_together() -> None:
    objective = telling()
    assert "uses 1.0 of its 16 words" in objective.unwell({"perplexity": 1.02})
    assert objective.unwell({"perplexity": 9.0}) == ""


def test_settings_that_do_not_fit_are_said() -> None:
    with pytest.raises(Refused, match="cannot be shared by 3 codebooks"):
        workbench.resolve({"run": "wav2vec2", **TINY, "codebooks": 3})
    with pytest.raises(Refused, match="cannot end at 3"):
        workbench.resolve({"run": "wav2vec2", **TINY, "cold": 3.0})
    with pytest.raises(Refused, match="not among the pseudo-labels"):
        workbench.resolve({"run": "wav2vec2", **TINY, "weights": "pitch 2"})
