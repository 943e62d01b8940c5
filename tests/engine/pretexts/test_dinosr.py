"""DinoSR: clusters and loss by hand; clusters follow by their formula; it learns, and goes on exactly after a stop."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from app import workbench
from engine.errors import Interrupted, Refused
from engine.job import Job, JobStore
from engine.pretext import Batch
from engine.pretexts.dinosr import Dinosr, Naming
from engine.run import Context

TINY: dict[str, Any] = {
    "corpus": "spoken:digits?voices=4",
    "front": "features",
    "steps": 20,
    "batch_seconds": 24,
    "parts": 1,
    "rate": 0.005,
    "fall": 0.07,
    "blocks": 2,
    "top": 2,
    "entries": 8,
    "revive": 0.1,
    "width": 16,
    "heads": 2,
    "inner": 32,
    "dropout": 0.0,
    "layer_drop": 0.0,
    "memory": 0.999,
    "memory_end": 0.9999,
    "memory_steps": 10,
    "checkpoint_every": 7,
    "validate_every": 10,
}
SOUND = {**TINY, "front": "waveform", "channels": 16, "batch_seconds": 3}


def trace(job: Job) -> dict[int, tuple[str, ...]]:
    found: dict[int, tuple[str, ...]] = {}
    for event in job.events.read()[0]:
        if event.kind == "metric":
            told = tuple(f"{name}={float(value).hex()}" for name, value in sorted(event.values.items()))
            assert found.setdefault(event.values["step"], told) == told
    return found


def test_it_learns_its_clusters_stay_in_use_and_it_goes_on_exactly(workspace: Path) -> None:
    whole, torn = (JobStore().submit(workbench.resolve({"run": "dinosr", **TINY}).document) for _ in range(2))
    result = workbench.resolve(whole.document).run(Context(whole.folder, device="cpu"))
    told = [line for line in result.table if line["split"] == "train"]
    assert float(told[-1]["loss"] or 0) < 0.97 * float(told[0]["loss"] or 0)
    assert float(told[-1]["accuracy"] or 0) > 1.5 / 8
    used = [float(line["perplexity"] or 0) for line in told]
    assert min(used) > 1.5 and sum(used) / len(used) > 3

    def stop() -> None:
        if len(trace(torn)) == 9:
            raise Interrupted("enough")

    with pytest.raises(Interrupted):
        workbench.resolve(torn.document).run(Context(torn.folder, device="cpu", stop=stop))
    again = workbench.resolve(torn.document).run(Context(torn.folder, device="cpu"))
    assert len(trace(torn)) == 20 and trace(torn) == trace(whole)
    assert again.facts["revision"] == result.facts["revision"]


def objective(settings: dict[str, Any]) -> Naming:
    spec = Dinosr(**settings)
    torch.manual_seed(3)
    return Naming(spec, spec.network())


def batch(made: Naming) -> Batch:
    draw = torch.Generator().manual_seed(1)
    if made.learns_front:
        waves = [0.1 * torch.randn(samples, generator=draw) for samples in (8_000, 11_000)]
        return Batch([(wave,) for wave in waves], [0, 1], [11, 12])
    clips = [torch.randn(frames, made.network.channels, generator=draw) for frames in (24, 40)]
    return Batch([(clip,) for clip in clips], [0, 1], [11, 12])


def nearest(target: Tensor, entries: Tensor) -> Tensor:
    return torch.stack([(frame - entries).square().sum(1).argmin() for frame in target])


@torch.no_grad()
def test_the_loss_by_hand() -> None:
    made = objective(TINY).eval()
    loss = made(batch(made))
    states, targets, _ = made.both(batch(made))
    assert len(targets) == 2
    total, right = 0.0, 0.0
    for number, target in enumerate(targets):
        names = nearest(target, made.codes.vectors[number])
        scores = made.heads(states)[:, 8 * number : 8 * number + 8]
        total -= float(scores.log_softmax(1)[torch.arange(len(names)), names].sum()) / 2
        right += float((scores.argmax(1) == names).float().mean()) / 2
    assert loss.count == len(states) > 20
    assert float(loss.total) == pytest.approx(total, rel=1e-4)
    assert float(loss.shown["accuracy"]) == pytest.approx(right, rel=1e-5)

    alone = [made(Batch([clip], [i], [11 + i])) for i, clip in enumerate(batch(made).clips)]
    assert sum(float(each.total) for each in alone) == pytest.approx(total, rel=1e-4)


def test_clusters_follow_the_frames_that_chose_them() -> None:
    made = objective({**TINY, "revive": 0.0})
    sums, counts = torch.zeros(2, 8, 16), torch.zeros(2, 8)
    vectors = made.codes.vectors.clone()
    for step in range(3):
        made.begin(step, 100)
        _, targets, _ = made.both(batch(made))
        made(batch(made))
        for book, target in enumerate(targets):
            names = nearest(target, vectors[book])
            for entry in range(8):
                chosen = target[names == entry]
                sums[book, entry] = 0.9 * sums[book, entry] + 0.1 * chosen.sum(0)
                counts[book, entry] = 0.9 * counts[book, entry] + 0.1 * len(chosen)
        torch.testing.assert_close(made.codes.vectors, vectors, rtol=1e-4, atol=1e-5)  # not before the step is over
        made.stepped()
        known = counts > 0
        assert int(known.sum()) > 2
        vectors[known] = sums[known] / counts[known][:, None]
        torch.testing.assert_close(made.codes.vectors, vectors, rtol=1e-4, atol=1e-5)
    made.eval()
    made(batch(made))
    made.stepped()
    torch.testing.assert_close(made.codes.vectors, vectors, rtol=1e-4, atol=1e-5)  # what is held out teaches nothing


def test_teacher_and_front_stand_still_in_the_end() -> None:
    made = objective({**SOUND, "still_after": 50})
    made.begin(49, 100)
    assert made.memory == 0.9999
    made(batch(made)).total.backward()
    assert made.network.front[0].weight.grad is not None
    made.zero_grad()
    made.begin(50, 100)
    assert made.memory == 1.0
    made(batch(made)).total.backward()
    moved = {name.split(".")[0] for name, weight in made.network.named_parameters() if weight.grad is not None}
    assert moved == {"positions", "norm", "blocks"}
    assert made.mask.grad is not None and all(weight.grad is None for weight in made.teacher.parameters())


def test_a_collapse_is_told_of_when_the_beginning_is_over() -> None:
    made = objective(TINY)
    made.begin(10, 1000)
    assert made.unwell({"perplexity": 1.0, "guess_perplexity": 1.0}) == ""
    made.begin(500, 1000)
    assert "nearly all frames fall into one cluster of 8" in made.unwell({"perplexity": 1.2, "guess_perplexity": 5.0})
    assert "nearly all guesses" in made.unwell({"perplexity": 5.0, "guess_perplexity": 1.1})
    assert made.unwell({"perplexity": 5.0, "guess_perplexity": 5.0}) == ""


def test_more_target_blocks_than_there_are_is_said() -> None:
    with pytest.raises(Refused, match="targets of 3 blocks cannot be taken from a network of 2"):
        workbench.resolve({"run": "dinosr", **TINY, "top": 3})
