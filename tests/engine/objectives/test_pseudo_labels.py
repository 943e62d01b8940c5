"""Labels of the sound as targets: their frames, their spread, their weights by hand and from a pretext selection."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine import audio, corpus
from engine.errors import Refused, Unknown
from engine.job import JobStore
from engine.objectives import pseudo_labels
from engine.objectives.pseudo_labels import PseudoLabels, Standard, by_hand, selected
from engine.pretext import Sound
from engine.run import Result
from probing.analyses.pretext_selection import PretextSelection

RATE = 16_000
FOUND = {
    "softmax": {"pitch": 0.5, "voicing": 0.3, "rate": 0.2},
    "sparsemax": {"pitch": 1.0, "voicing": 0.0, "rate": 0.0},
}


def tone(hertz: float, loud: float, seconds: float) -> Tensor:
    return loud * torch.sin(2 * math.pi * hertz * torch.arange(round(seconds * RATE)) / RATE + 0.1)


@pytest.fixture
def sound(tmp_path: Path) -> Sound:
    for number, hertz in enumerate((100, 200, 400)):
        audio.save(tmp_path / f"{number}.wav", torch.cat([tone(hertz, 0.3, 1), torch.zeros(RATE)]))
    return Sound(list(corpus.find(f"folder:{tmp_path}").utterances()), 0.1)


def selection(document: dict[str, object] | None = None, facts: object = FOUND) -> str:
    job = JobStore().submit(document or PretextSelection().document)
    Result([], [], {"weights": facts}).save(job.result_file)
    return job.id


def test_targets_are_the_tracks_at_the_rate_of_the_network(sound: Sound) -> None:
    labels = PseudoLabels({"loudness": 1.0, "pitch": 1.0}, 4, 320, sound, 0)
    targets = labels.targets(torch.cat([tone(200, 0.3, 0.5), torch.zeros(RATE // 2)]), 49)
    assert targets.shape == (49, 2)
    level = 10 * math.log10(0.3**2 / 2)
    assert targets[2:23, 0].tolist() == pytest.approx([level] * 21, abs=0.1)  # 20 ms each, the change is at frame 25
    assert targets[24, 0] > -20 and -60 < targets[25, 0] < -35 and targets[26:, 0].tolist() == [-70.0] * 23
    assert targets[4:22, 1].tolist() == pytest.approx([12 * math.log2(200 / 27.5)] * 18, abs=0.1)
    assert bool(targets[28:, 1].isnan().all())


def test_they_are_brought_to_mean_0_and_variance_1_over_the_sound(sound: Sound) -> None:
    labels = PseudoLabels({"loudness": 1.0, "pitch": 1.0}, 4, 160, sound, 0)
    every = torch.cat([labels.targets(sound.wave(number), 200) for number in range(len(sound))])
    there = [column[column.isfinite()] for column in labels.standard(every).T]
    assert [float(column.mean()) for column in there] == pytest.approx([0, 0], abs=1e-4)
    assert [float(column.var(unbiased=False)) for column in there] == pytest.approx([1, 1], abs=1e-3)


def test_a_bounded_sample_of_the_sound_is_listened_to(sound: Sound, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pseudo_labels, "SAMPLED", 3.0)
    heard: list[int] = []

    def make(wave: Tensor) -> Tensor:
        heard.append(len(wave))
        return torch.tensor([[1.0, 5.0], [3.0, 5.0]])

    standard = Standard.of(sound, 0, make)
    assert len(heard) == 2
    assert standard(torch.tensor([[4.0, 6.0]])).tolist() == [[2.0, 1.0]]  # what never moves is only brought to 0


@pytest.mark.parametrize(("power", "expected"), [(1, 2.0 * (2 + 2) + 0.5 * 3), (2, 2.0 * (4 + 4) + 0.5 * 9)])
def test_the_loss_is_the_weighted_sum_of_what_is_defined(sound: Sound, power: int, expected: float) -> None:
    labels = PseudoLabels({"loudness": 2.0, "pitch": 0.5}, 4, 160, sound, 0, power=power)
    assert isinstance(labels.head, torch.nn.Linear)
    torch.nn.init.zeros_(labels.head.weight)
    torch.nn.init.constant_(labels.head.bias, -1.0)
    targets = torch.tensor([[1.0, math.nan], [-3.0, 2.0]]) * labels.standard.deviation + labels.standard.mean
    loss = labels(torch.randn(2, 4), targets)
    assert float(loss.total.detach()) == pytest.approx(expected, rel=1e-4) and loss.count == 2
    assert float(loss.shown["pitch_error"]) == pytest.approx(3.0**power, rel=1e-4)
    loss.total.backward()
    assert bool(labels.head.weight.grad.isfinite().all())  # type: ignore[union-attr]


def test_weights_by_hand() -> None:
    assert by_hand("", ["pitch", "voicing"]) == {"pitch": 1, "voicing": 1}
    assert by_hand("zero crossings 2, pitch 0.5", ["pitch", "voicing", "zero crossings"]) == {
        "pitch": 0.5,
        "voicing": 1,
        "zero crossings": 2,
    }
    for text, said in {
        "pitch": "'pitch' is not a pseudo-label and a number",
        "pitch -1": "a number from 0 on",
        "pitch nan": "a number from 0 on",
        "rasta 1": "'rasta', which is not among",
        "pitch 0": "all pseudo-labels have the weight 0",
    }.items():
        with pytest.raises(ValueError, match=said):
            by_hand(text, ["pitch"])


def test_weights_of_a_pretext_selection() -> None:
    id = selection()
    assert selected(id, "sparsemax", ["pitch", "voicing"]) == {"pitch": 1.0, "voicing": 0.0}
    with pytest.raises(Refused, match="gives weight to voicing, rate too"):
        selected(id, "softmax", ["pitch"])
    with pytest.raises(Refused, match="has not weighed rasta; it knows pitch, voicing, rate"):
        selected(id, "sparsemax", ["rasta"])
    with pytest.raises(Refused, match="is no pretext selection but runs check"):
        selected(selection({"run": "check"}), "softmax", ["pitch"])
    waiting = JobStore().submit(PretextSelection().document)
    with pytest.raises(Refused, match="has no result: it is queued"):
        selected(waiting.id, "softmax", ["pitch"])
    with pytest.raises(Unknown, match="no job called 'nonsense'"):
        selected("nonsense", "softmax", ["pitch"])
