"""data2vec: what is guessed and what the loss is, by hand; it learns, and goes on exactly where it was stopped."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from app import workbench
from engine import upstream
from engine.errors import Interrupted, Refused
from engine.job import Job, JobStore
from engine.nets.following import normalised
from engine.pretext import Batch
from engine.pretexts.data2vec import Data2vec, Guessing
from engine.run import Context

TINY: dict[str, Any] = {
    "corpus": "spoken:digits?voices=4",
    "front": "features",
    "steps": 24,
    "batch_seconds": 6,
    "parts": 1,
    "rate": 0.003,
    "blocks": 2,
    "top": 2,
    "width": 32,
    "heads": 2,
    "inner": 64,
    "dropout": 0.0,
    "layer_drop": 0.0,
    "memory": 0.99,
    "memory_end": 0.999,
    "memory_steps": 10,
    "checkpoint_every": 5,
    "validate_every": 8,
}
SOUND = {**TINY, "front": "waveform", "channels": 16, "steps": 7, "batch_seconds": 3, "dropout": 0.1, "layer_drop": 0.2}


def begin(settings: dict[str, Any]) -> Job:
    return JobStore().submit(workbench.resolve({"run": "data2vec", **settings}).document)


def trace(job: Job) -> dict[int, tuple[str, ...]]:
    found: dict[int, tuple[str, ...]] = {}
    for event in job.events.read()[0]:
        if event.kind == "metric":
            told = tuple(f"{name}={float(value).hex()}" for name, value in sorted(event.values.items()))
            assert found.setdefault(event.values["step"], told) == told
    return found


@pytest.mark.parametrize("settings", [TINY, SOUND], ids=["features", "waveform"])
def test_it_learns_and_goes_on_exactly(workspace: Path, settings: dict[str, Any]) -> None:
    whole, torn = begin(settings), begin(settings)
    result = workbench.resolve(whole.document).run(Context(whole.folder, device="cpu"))
    result.save(whole.result_file)
    assert result.facts["last_valid_loss"] < 0.75 * result.facts["first_loss"]

    def stop() -> None:
        if len(trace(torn)) == 6:
            raise Interrupted("enough")

    with pytest.raises(Interrupted):
        workbench.resolve(torn.document).run(Context(torn.folder, device="cpu", stop=stop))
    assert 6 <= len(trace(torn)) < settings["steps"]
    again = workbench.resolve(torn.document).run(Context(torn.folder, device="cpu"))
    assert trace(torn) == trace(whole) and again.facts["revision"] == result.facts["revision"]

    # The teacher is in the checkpoints, not in what is kept.
    card = upstream.find(f"job:{whole.id}")
    found = card.open(card)
    assert not [name for name in found.state_dict() if "teacher" in name]
    state = torch.load(max(whole.checkpoints.glob("*.pt")), weights_only=True)
    assert [name for name in state["module"] if name.startswith("teacher.network.")]


def objective(settings: dict[str, Any]) -> Guessing:
    spec = Data2vec(**settings)
    torch.manual_seed(3)
    made = Guessing(spec, spec.network())
    with torch.no_grad():  # a teacher that is not the network, so that one cannot be taken for the other
        for weight in made.teacher.parameters():
            weight.mul_(1.5)
    return made


def clips(made: Guessing) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    if made.learns_front:
        return [0.1 * torch.randn(samples, generator=draw) for samples in (8_000, 11_000)]
    return [torch.randn(frames, made.network.channels, generator=draw) for frames in (24, 40)]


def batch(made: Guessing) -> Batch:
    return Batch([(clip,) for clip in clips(made)], [0, 1], [11, 12])


@torch.no_grad()
@pytest.mark.parametrize("settings", [TINY, SOUND], ids=["features", "waveform"])
def test_the_loss_is_the_squared_error_of_hidden_frames_by_hand(settings: dict[str, Any]) -> None:
    made = objective(settings).eval()
    loss, total, count = made(batch(made)), 0.0, 0
    for clip, hidden in zip(clips(made), made.hides(batch(made)), strict=True):
        local = made.network.local([clip])[0] if made.learns_front else clip
        projected = made.network.projected(local)
        seen = projected.clone()
        seen[hidden] = made.mask
        state = made.network.contextual(seen, [len(local)])[-1]
        heard = projected if made.learns_front else made.teacher.network.projected(local)
        fed = made.teacher.fed(heard, [len(local)])
        target = (normalised(fed[0], [len(local)]) + normalised(fed[1], [len(local)])) / 2
        error = functional.linear(state[hidden], made.head.weight, made.head.bias) - target[hidden]
        total += float(error.square().sum()) / 32**0.5
        count += int(hidden.sum())
    assert loss.count == count > 20
    assert float(loss.total) == pytest.approx(total, rel=1e-4)
    assert set(loss.shown) == {"teacher_spread", "guess_spread"}

    bent = Guessing(Data2vec(**{**settings, "bend": 1.0}), made.network).eval()
    bent.load_state_dict(made.state_dict())
    states, targets, _ = made.both(batch(made))
    expected = functional.smooth_l1_loss(made.head(states), (targets[0] + targets[1]) / 2, reduction="sum")
    assert float(bent(batch(made)).total) == pytest.approx(float(expected) / 32**0.5, rel=1e-4)


@torch.no_grad()
def test_only_the_teacher_hears_what_is_hidden_and_only_the_last_blocks_are_its_targets() -> None:
    made = objective({**TINY, "top": 1}).eval()
    states, targets, counts = made.both(batch(made))
    assert len(targets) == 1 and counts == [int(each.sum()) for each in made.hides(batch(made))]
    lengths, heard = made.frames(batch(made)), made.teacher.network.projected(torch.cat(clips(made)))
    last = normalised(made.teacher.fed(heard, lengths)[-1], lengths)
    torch.testing.assert_close(targets[0], last[torch.cat(made.hides(batch(made)))])
    other = Batch(
        [
            (torch.where(hidden[:, None], torch.randn_like(clip), clip),)
            for clip, hidden in zip(clips(made), made.hides(batch(made)), strict=True)
        ],
        [0, 1],
        [11, 12],
    )
    blind, moved, _ = made.both(other)
    assert torch.equal(states, blind)
    assert float((moved[0] - targets[0]).abs().max()) > 0.1


def test_no_gradient_reaches_the_teacher_nor_passes_through_it() -> None:
    made = objective(SOUND)
    made(batch(made)).total.backward()
    assert all(weight.grad is None for weight in made.teacher.parameters())
    assert made.network.front[0].weight.grad is not None and made.head.weight.grad is not None
    # Where nothing the network sees leads to its guesses, nothing of the targets may lead back.
    with torch.no_grad():
        made.head.weight.zero_()
    made.zero_grad()
    made(batch(made)).total.backward()
    moved = [name for name, weight in made.network.named_parameters() if weight.grad is not None and weight.grad.any()]
    assert moved == []


def test_the_teacher_moves_after_each_step_and_no_sooner() -> None:
    made = objective(TINY)
    before = {name: weight.clone() for name, weight in made.teacher.network.named_parameters()}
    made.begin(5, 100)
    assert made.memory == pytest.approx(0.9945)
    made(batch(made))
    theirs = dict(made.network.named_parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in made.teacher.network.named_parameters())
    made.stepped()
    for name, weight in made.teacher.network.named_parameters():
        torch.testing.assert_close(weight, 0.9945 * before[name] + 0.0055 * theirs[name], rtol=1e-6, atol=1e-7)


def test_a_clip_costs_the_same_alone_and_in_company() -> None:
    made = objective(TINY).eval()
    with torch.no_grad():
        together = made(batch(made))
        alone = [made(Batch([(clip,)], [i], [11 + i])) for i, clip in enumerate(clips(made))]
    assert float(together.total) == pytest.approx(sum(float(loss.total) for loss in alone), rel=1e-5)
    for name in together.shown:
        added = sum(float(loss.shown[name]) * loss.count for loss in alone) / together.count
        assert float(together.shown[name]) == pytest.approx(added, rel=1e-4)


def test_a_collapse_is_told_of_when_the_beginning_is_over() -> None:
    made = objective(TINY)
    flat, fine = {"teacher_spread": 0.09, "guess_spread": 0.2}, {"teacher_spread": 0.5, "guess_spread": 0.2}
    made.begin(10, 1000)
    assert made.unwell(flat) == ""
    made.begin(250, 1000)
    assert "targets of all frames have become alike" in made.unwell(flat)
    assert "guesses of all frames" in made.unwell({**fine, "guess_spread": 0.005})
    assert made.unwell(fine) == ""


def test_more_target_blocks_than_there_are_is_said() -> None:
    with pytest.raises(Refused, match="targets of 3 blocks cannot be taken from a network of 2"):
        workbench.resolve({"run": "data2vec", **TINY, "top": 3})
