"""Telling frames to come from false ones: which frame is guessed from which, and signals whose loss is known ahead."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from engine.nets.contrast import others, surprise, suspicion
from engine.nets.foresight import Foreseer, Guesses, ahead_of
from engine.objectives.foreseeing import Foresight
from engine.pretext import Batch
from engine.pretexts.bidirectional_cpc import BidirectionalCpc
from engine.pretexts.cpc import Cpc
from engine.pretexts.modified_cpc import ModifiedCpc
from engine.pretexts.wav2vec import Wav2vec
from engine.upstream import Hidden

SMALL = {"front": "features", "channels": 16, "width": 16, "source": "clip", "others": 7, "ahead": 3, "window": 0}


def batch_of(*clips: Tensor, seed: int = 11) -> Batch:
    return Batch([(clip,) for clip in clips], list(range(len(clips))), [seed + index for index in range(len(clips))])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Told(Foreseer):
    """Frames and contexts are what it is given: nothing is learnt but the guesses."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = self.width = channels
        self.over = None

    def frames(self, samples: int) -> int:
        return samples

    def framed(self, prepared: Tensor) -> Tensor:
        return prepared

    def context(self, frames: list[Tensor]) -> list[Tensor]:  # type: ignore[override]
        return list(frames)

    def forward(self, wavs: list[Tensor], attention: bool) -> Hidden:
        raise NotImplementedError


def told(channels: int, *, ahead: int = 3, count: int = 7, source: str = "clip") -> Foresight:
    form = Cpc(ahead=ahead, others=count, source=source, window=0)  # type: ignore[arg-type]
    return Foresight(Told(channels), [Guesses("linear", channels, channels, ahead)], form)


def learnt(clips: Callable[[int], list[Tensor]], steps: int) -> Foresight:
    """A whole network, recurrent net and all, after some steps on such features."""
    torch.manual_seed(0)
    spec = Cpc(**SMALL)
    objective = spec.objective(spec.network(), None)  # type: ignore[arg-type]
    assert isinstance(objective, Foresight)
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.01)
    for step in range(steps):
        loss = objective(batch_of(*clips(step), seed=1000 * step))
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
    return objective


def test_every_guess_is_of_a_frame_within_the_clip() -> None:
    begin, distance, true = ahead_of(4, 2)
    assert list(zip(begin.tolist(), distance.tolist(), true.tolist(), strict=True)) == [
        (0, 0, 1),
        (0, 1, 2),
        (1, 0, 2),
        (1, 1, 3),
        (2, 0, 3),
    ]
    assert len(ahead_of(1, 5)[0]) == 0


@torch.no_grad()
def test_guess_k_is_compared_with_the_frame_k_ahead() -> None:
    """Each frame is a unit vector of its own, and the map of distance k turns frame t into frame t + k."""
    frames, ahead = 12, 3
    objective = told(frames, ahead=ahead)
    for k, step in enumerate(objective.guesses[0].steps, start=1):  # type: ignore[union-attr, arg-type]
        step.weight.copy_(50 * torch.eye(frames).roll(k, dims=0))  # type: ignore[union-attr, operator]
    loss = objective(batch_of(torch.eye(frames)))
    assert loss.count == 11 + 10 + 9
    assert float(loss.total) == pytest.approx(0, abs=1e-6) and float(loss.shown["accuracy"]) == 1
    step.weight.copy_(50 * torch.eye(frames).roll(ahead + 1, dims=0))  # type: ignore[union-attr, operator]
    assert float(objective(batch_of(torch.eye(frames))).total) > 9 * math.log(8) - 0.01


@torch.no_grad()
def test_the_loss_of_two_clips_by_hand() -> None:
    objective = told(4, ahead=2, count=5)
    clips = [noise(frames, 4, seed=frames) for frames in (6, 9)]
    batch = batch_of(*clips)
    total, count = 0.0, 0
    for index, clip in enumerate(clips):
        compared = others(len(clip), 5, batch.generators()[index])
        for begin in range(len(clip)):
            for k in (1, 2):
                if begin + k < len(clip):
                    guess = objective.guesses[0].steps[k - 1](clip[begin])  # type: ignore[union-attr, index, operator]
                    total += float(surprise((clip[compared[begin + k]] @ guess)[None]))
                    count += 1
    loss = objective(batch)
    assert loss.count == count and float(loss.total) == pytest.approx(total, rel=1e-5)


@torch.no_grad()
def test_false_frames_of_the_batch_come_from_all_clips() -> None:
    objective = told(4, count=200, source="batch")
    clips = [noise(frames, 4, seed=frames) for frames in (3, 5)]
    compared = objective.compared([3, 5], batch_of(*clips))
    for own, rivals in zip(range(8), torch.cat(compared)[:, 1:], strict=True):
        assert set(rivals.tolist()) == set(range(8)) - {own}
    assert torch.cat(compared)[:, 0].tolist() == list(range(8))
    table, by_hand = torch.cat(clips), 0.0
    for clip, rows in zip(clips, compared, strict=True):
        for begin, distance, true in zip(*ahead_of(len(clip), 3), strict=True):
            guess = objective.guesses[0].steps[distance](clip[begin])  # type: ignore[union-attr, index, operator]
            by_hand += float(surprise((table[rows[true]] @ guess)[None]))
    loss = objective(batch_of(*clips))
    assert loss.count == 2 + 1 + 4 + 3 + 2 and float(loss.total) == pytest.approx(by_hand, rel=1e-5)


def test_a_predictable_signal_is_told_without_fail() -> None:
    """Features that run through sixteen places in a fixed order, beginning anywhere."""
    places = noise(16, 160)
    clips = [places.roll(begin, dims=0) for begin in range(16)]
    objective = learnt(lambda step: [clips[(5 * step + other) % 16] for other in range(4)], 100)
    with torch.no_grad():
        loss = objective(batch_of(*clips, seed=99_999))
    assert float(loss.total) / loss.count < 0.02 and float(loss.shown["accuracy"]) == 1


def test_white_noise_is_told_no_better_than_by_guessing() -> None:
    """Frames that know nothing of each other: the loss stays at the logarithm of the choices, whatever is learnt."""
    objective = learnt(lambda step: [noise(100, 160, seed=step + 1)], 50)
    with torch.no_grad():
        fresh = objective(batch_of(noise(3000, 160, seed=999), seed=999))
    assert math.log(8) - 0.02 < float(fresh.total) / fresh.count < math.log(8) + 0.1
    assert float(fresh.shown["accuracy"]) == pytest.approx(1 / 8, abs=0.02)


@torch.no_grad()
def test_each_frame_judged_by_itself_is_wav2vecs_loss() -> None:
    form = Wav2vec(ahead=1, others=4)
    objective = Foresight(Told(4), [Guesses("linear", 4, 4, 1, bias=True)], form, balance=4.0)
    clip = noise(5, 4)
    batch = batch_of(clip)
    compared = others(5, 4, batch.generators()[0])
    step = objective.guesses[0].steps[0]  # type: ignore[union-attr, index]
    by_hand = [suspicion((clip[compared[t + 1]] @ step(clip[t]))[None], 4.0) for t in range(4)]  # type: ignore[operator]
    assert float(objective(batch).total) == pytest.approx(float(sum(by_hand)), rel=1e-5)


@pytest.mark.parametrize("predictor", ["linear", "LSTM", "transformer"])
def test_a_guess_knows_no_later_context(predictor: str) -> None:
    guesses = Guesses(predictor, 16, 6, 2).eval()  # type: ignore[arg-type]
    contexts = noise(1, 9, 16).requires_grad_()
    (gradient,) = torch.autograd.grad(guesses(contexts)[0, 4].square().sum(), contexts)
    assert torch.equal(gradient[0, 5:], torch.zeros(4, 16)) and float(gradient[0, 4].abs().max()) > 0


@pytest.mark.parametrize("back", [False, True])
def test_both_ways_know_only_their_side(back: bool) -> None:
    """A context of the past has no gradient to later frames, one of the future none to earlier ones."""
    spec = BidirectionalCpc(channels=8)
    network = spec.network()
    for layer in [*network.past, *network.future]:
        layer.statistics = lambda products: (products.new_zeros(()), products.new_ones(()))  # type: ignore[method-assign, assignment, misc]
    frames = noise(40, 8).requires_grad_()
    context = network.context([frames])[0].chunk(2, dim=1)[int(back)]
    (gradient,) = torch.autograd.grad(context[20].square().sum(), frames)
    unknown, known = (gradient[:20], gradient[20:]) if back else (gradient[21:], gradient[:21])
    assert torch.equal(unknown, torch.zeros_like(unknown)) and float(known.abs().sum()) > 0


@torch.no_grad()
def test_what_was_is_guessed_from_the_end() -> None:
    """The second direction of a clip is the first direction of the clip turned round."""
    form = BidirectionalCpc(ahead=2, others=3)
    guesses = [Guesses("linear", 4, 4, 2) for _ in range(2)]
    guesses[1].load_state_dict(guesses[0].state_dict())
    objective = Foresight(Told(4), guesses, form)
    clip, batch = noise(7, 4), batch_of(noise(7, 4))
    compared = others(7, 3, batch.generators()[0])
    by_hand = 0.0
    for begin in range(7):
        for k in (1, 2):
            for goal in (begin + k, begin - k):
                if 0 <= goal < 7:
                    guess = guesses[0].steps[k - 1](clip[begin])  # type: ignore[operator]
                    by_hand += float(surprise((clip[compared[goal]] @ guess)[None]))
    loss = objective.told([clip], [torch.cat([clip, clip], dim=1)], batch)
    assert loss.count == 2 * (6 + 5) and float(loss.total) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize(
    "spec",
    [
        Cpc(**SMALL),
        Cpc(**{**SMALL, "front": "waveform", "window": 0.1}),
        ModifiedCpc(**SMALL),
        ModifiedCpc(**{**SMALL, "predictor": "LSTM"}),
        Wav2vec(channels=8, ahead=3, window=0.1),
        BidirectionalCpc(channels=8, ahead=3),
        BidirectionalCpc(channels=8, ahead=3, front="features"),
        Wav2vec(channels=8, ahead=3, front="features", reduce=1),
    ],
    ids=lambda spec: f"{spec.name} {getattr(spec, 'predictor', '')} {getattr(spec, 'front', '')}",
)
@torch.no_grad()
def test_a_clip_costs_alone_what_it_costs_in_company(spec: Cpc) -> None:
    torch.manual_seed(0)
    objective = spec.objective(spec.network(), None).eval()  # type: ignore[arg-type]
    clips = [objective.prepare(0.1 * noise(samples, seed=samples)) for samples in (3200, 4800, 2400)]
    together = objective(Batch(clips, [4, 5, 6], [14, 15, 16]))
    alone = [objective(Batch([clip], [4 + i], [14 + i])) for i, clip in enumerate(clips)]
    assert together.count == sum(loss.count for loss in alone)
    assert float(together.total) == pytest.approx(sum(float(loss.total) for loss in alone), rel=1e-4)


def test_a_window_is_drawn_anew_for_each_clip_and_no_longer_than_it() -> None:
    spec = Cpc(front="features", window=0.2, reduce=1)  # type: ignore[arg-type]
    objective = spec.objective(spec.network(), None)  # type: ignore[arg-type]
    assert isinstance(objective, Foresight) and objective.window == 20
    clips = [torch.arange(50)[:, None], torch.arange(50)[:, None], torch.arange(9)[:, None]]
    first, second = objective.cut(batch_of(*clips)), objective.cut(batch_of(*clips, seed=77))
    assert [len(clip) for clip in first] == [20, 20, 9]
    begins = {int(clip[0]) for clip in (*first[:2], *second[:2])}
    assert len(begins) > 1 and all(torch.equal(clip, clip[0] + torch.arange(len(clip))[:, None]) for clip in first)


def test_frames_that_are_all_alike_are_said_to_be() -> None:
    objective = told(4)
    with torch.no_grad():
        flat = objective(batch_of(torch.ones(20, 4)))
        lively = objective(batch_of(noise(20, 4)))
    assert "nothing to tell apart" in objective.unwell({name: float(value) for name, value in flat.shown.items()})
    assert objective.unwell({name: float(value) for name, value in lively.shown.items()}) == ""
    assert float(flat.shown["accuracy"]) == 0
