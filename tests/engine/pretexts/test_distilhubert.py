"""DistilHuBERT: what the loss is, by hand; what is inherited; which teachers are refused; it learns."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from app import workbench
from engine import upstream
from engine.job import JobStore
from engine.nets.wav2vec2 import Wav2Vec2
from engine.pretext import Batch
from engine.pretexts.distilhubert import Distilhubert, Distillation, inherit, thirds
from engine.run import Context

TINY: dict[str, Any] = {
    "corpus": "spoken:digits?voices=4",
    "teacher": "hubert-small",
    "front": "features",
    "steps": 24,
    "batch_seconds": 6,
    "rate": 0.003,
    "width": 32,
    "heads": 2,
    "inner": 64,
    "dropout": 0.0,
    "checkpoint_every": 10,
    "validate_every": 8,
}
SOUND = {**TINY, "front": "waveform", "channels": 16}


def waves() -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [0.1 * torch.randn(samples, generator=draw) for samples in (8_000, 11_100)]


def objective(settings: dict[str, Any], layers: tuple[int, ...] = (2, 4)) -> Distillation:
    spec = Distilhubert(**settings)
    torch.manual_seed(3)
    return Distillation(spec.network(), spec.taught_by(torch.device("cpu")), layers, spec.agreement, spec.slope)  # type: ignore[arg-type]


@torch.no_grad()
@pytest.mark.parametrize("settings", [TINY, SOUND], ids=["features", "waveform"])
def test_the_loss_by_hand(settings: dict[str, Any]) -> None:
    made = objective(settings).eval()
    teacher, network = upstream.load("hubert-small"), made.network
    errors, angles, count = 0.0, 0.0, 0
    for wave in waves():
        state = network.encode([wave]).clip(0)[-1]
        heard = teacher.encode([wave]).clip(0)
        frames = min(len(state), len(heard[0]))
        count += frames
        for head, layer in zip(made.heads, (2, 4), strict=True):
            for guess, target in zip(head(state[:frames]), heard[layer], strict=False):
                cosine = float(guess @ target / (guess.norm() * target.norm()))
                errors += float((guess - target).abs().sum()) / 192 / 2
                angles += math.log(1 + math.exp(-cosine)) / 2
    batch = Batch([made.prepare(wave) for wave in waves()], [0, 1], [11, 12])
    loss = made(batch)
    assert loss.count == count and float(loss.total) == pytest.approx(errors + angles, rel=1e-4)
    assert float(loss.shown["error"]) == pytest.approx(errors / count, rel=1e-4)
    alone = [float(made(Batch([clip], [i], [11 + i])).total) for i, clip in enumerate(batch.clips)]
    assert sum(alone) == pytest.approx(float(loss.total), rel=1e-5)


def test_it_learns_and_the_teacher_is_neither_changed_nor_kept(workspace: Path) -> None:
    job = JobStore().submit(workbench.resolve({"run": "distilhubert", **TINY}).document)
    spec = workbench.resolve(job.document)
    assert spec.needs() == []
    result = spec.run(Context(job.folder, device="cpu"))
    result.save(job.result_file)
    assert result.facts["last_valid_loss"] < 0.85 * result.facts["first_loss"]
    assert result.facts["teacher"] == {
        "name": "hubert-small",
        "revision": upstream.find("hubert-small").revision,
        "layers": [1, 3, 4],
    }
    cosines = [float(line["cosine"] or 0) for line in result.table if line["split"] == "valid"]
    assert cosines[-1] > cosines[0]
    card = upstream.find(f"job:{job.id}")
    assert card.layers == 2 and not [name for name in card.open(card).state_dict() if "teacher" in name]
    state = torch.load(max(job.checkpoints.glob("*.pt")), weights_only=True)["module"]
    assert not [name for name in state if "teacher" in name] and [name for name in state if name.startswith("heads.2.")]


def test_the_teacher_learns_nothing_and_drops_nothing() -> None:
    made = objective(TINY).train()
    teacher = made._teacher[0]
    assert not teacher.training and not any(weight.requires_grad for weight in teacher.parameters())
    assert {id(weight) for weight in made.parameters()}.isdisjoint({id(weight) for weight in teacher.parameters()})


def test_what_is_built_alike_begins_as_the_teacher() -> None:
    torch.manual_seed(0)
    teacher = Distilhubert(**{**SOUND, "blocks": 4}).network()
    student = Distilhubert(**SOUND).network()
    narrow = Distilhubert(**{**SOUND, "inner": 32}).network()
    assert isinstance(teacher, Wav2Vec2) and isinstance(student, Wav2Vec2)
    before = {name: weight.clone() for name, weight in narrow.named_parameters()}
    assert inherit(student, teacher) == sum(weight.numel() for weight in student.parameters())
    theirs = dict(teacher.named_parameters())
    assert all(torch.equal(weight, theirs[name]) for name, weight in student.named_parameters())
    assert theirs["blocks.3.up.weight"].shape == (64, 32)  # the upper blocks are left to the teacher
    taken = inherit(narrow, teacher)
    assert 0 < taken < sum(weight.numel() for weight in narrow.parameters())
    for name, weight in narrow.named_parameters():
        wanted = before[name] if theirs[name].shape != weight.shape else theirs[name]
        assert torch.equal(weight, wanted)
    assert inherit(Distilhubert(**TINY).network(), teacher) == 0  # a network of another kind


def test_layers_are_a_third_two_thirds_and_all_the_way_up() -> None:
    assert thirds(12) == (4, 8, 12) and thirds(24) == (8, 16, 24)
    assert thirds(2) == (1, 2) and thirds(1) == (1,) and thirds(0) == (0,)


def test_a_teacher_that_does_not_fit_is_said() -> None:
    assert Distilhubert(**TINY).needs() == []
    assert Distilhubert(**{**TINY, "reduce": 1}).needs() == [
        "hubert-small gives a frame each 20 ms, but the network to be trained each 10 ms. "
        "Choose another front, number of stacked frames or teacher."
    ]
    assert Distilhubert(**{**TINY, "layers": (2, 5, 9)}).needs() == [
        "hubert-small has no layer 5, 9: its layers are 0 to 4."
    ]
    assert "no-such-teacher" in Distilhubert(**{**TINY, "teacher": "no-such-teacher"}).needs()[0]


def test_a_clip_that_is_too_short_for_the_teacher_is_heard_with_silence_behind_it() -> None:
    made = objective({**SOUND, "teacher": "random:hubert-small"})
    assert made._teacher[0].card.shortest < 400 + 1
    made._teacher[0].card = replace(made._teacher[0].card, shortest=2_000)
    prepared = made.prepare(waves()[0][:500])
    assert len(prepared[0]) == 500 and len(prepared[1]) == made._teacher[0].frames(2_000)
    with torch.no_grad():
        assert made(Batch([prepared], [0], [1])).count == 1
