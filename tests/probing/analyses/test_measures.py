"""The analyses from end to end, on a corpus of tones and an upstream that knows their loudness only from layer 1 on."""

from pathlib import Path

import pytest
import torch

from app import workbench
from engine import upstream
from engine.errors import Refused
from engine.run import Context, Result
from engine.settings import HOUSE
from probing import reading
from probing.analyses import lnsr
from probing.stats import probes

PAGE = (HOUSE / "docs" / "extend.md").read_text("utf-8")
PLANTED = '''"""Layer 0 knows nothing, layers 1 and 2 know how loud it is."""
import torch
from engine.upstream import Card, Family, Hidden, Upstream


class Planted(Upstream):
    def __init__(self, card):
        super().__init__()
        self.card = card

    def frames(self, samples):
        return samples // 320

    def forward(self, wavs, attention):
        frames = [wav[: self.frames(len(wav)) * 320].view(-1, 320) for wav in wavs]
        power = torch.nn.utils.rnn.pad_sequence([(f.square().mean(1, keepdim=True) + 1e-6).log() for f in frames], True)
        generator = torch.Generator().manual_seed(int(1e4 * float(wavs[0][100].abs())))
        noise = torch.randn(*power.shape[:2], 2, generator=generator)
        known = torch.cat([noise[..., :1], power], -1)
        turned = known @ torch.tensor([[1.0, 2.0], [-1.0, 1.0]])
        return Hidden([noise, known, turned], torch.tensor([len(f) for f in frames]))


FAMILY = Family([Card("planted", "planted", layers=2, dims=(2, 2, 2), hop=320, shortest=320, open=Planted)])
'''


@pytest.fixture(autouse=True)
def extended(workspace: Path) -> None:
    """The tones of the page on extending, and the planted upstream."""
    for family, name, text in (
        ("corpora", "tones", PAGE.split("`corpora/tones.py`")[1].split("```python\n")[1].split("```")[0]),
        ("upstreams", "planted", PLANTED),
    ):
        folder = workspace / "extensions" / family
        folder.mkdir(parents=True)
        (folder / f"{name}.py").write_text(text, "utf-8")


def run(folder: Path, name: str, **settings: object) -> Result:
    base = {"run": name, "upstreams": ["planted"], "corpus": "tones:100", "unit": "utterance", "label": "loudness"}
    base = {key: value for key, value in base.items() if key == "run" or key in workbench.runs()[name].model_fields}
    result = workbench.resolve({**base, **settings}).run(Context(folder, device="cpu"))
    result.save(folder / "result.json")
    return Result.read(folder / "result.json")


def curve(result: Result, measure: str, upstream: str = "planted") -> list[float]:
    return [
        float(line["value"] or 0) for line in result.table if line["measure"] == measure and line.get("upstream") == upstream
    ]


def test_a_linear_probe_finds_the_layer_that_knows(workspace: Path) -> None:
    result = run(workspace, "linear_probe", baselines=["mel"])
    accuracy = curve(result, "accuracy")
    assert accuracy[0] < 0.8 and accuracy[1:] == [1.0, 1.0]
    assert [a - c for a, c in zip(accuracy, curve(result, "control"), strict=True)] == pytest.approx(
        curve(result, "selectivity")
    )
    assert curve(result, "accuracy", "most frequent class")[0] == pytest.approx(0.5, abs=0.06)
    assert len(set(curve(result, "accuracy", "mel-raw"))) == 1 and len(curve(result, "accuracy", "mel-raw")) == 3
    assert all(
        float(line["value_low"] or 0) <= float(line["value"] or 0) <= float(line["value_high"] or 0)
        for line in result.table
        if "value_low" in line
    )
    assert result.facts["converged"] and result.facts["rows"] == 100
    assert {figure.where.get("measure") for figure in result.figures} == {"accuracy", "control", "selectivity", None}


def test_the_control_task_gives_one_label_to_each_type_as_often_as_the_classes_occur() -> None:
    types = torch.arange(4000).repeat_interleave(2)
    y = torch.tensor([0] * 6000 + [1] * 2000)
    random = reading.control_labels(types, y, seed=3)
    assert torch.equal(random[::2], random[1::2])
    assert float((random == 0).double().mean()) == pytest.approx(0.75, abs=0.03)
    assert torch.equal(random, reading.control_labels(types, y, seed=3))
    assert not torch.equal(random, reading.control_labels(types, y, seed=4))


def test_an_interval_stays_within_what_the_measure_can_be(workspace: Path) -> None:
    lines = run(workspace, "linear_probe", corpus="tones:40", baselines=["mel"], repeats=2).table
    ends = [(float(line["value_low"] or 0), float(line["value_high"] or 0)) for line in lines if "value_low" in line]
    assert ends and all(0 <= low <= high <= 1 for low, high in ends)


def test_a_control_task_that_would_be_too_easy_is_left_out_and_said(workspace: Path) -> None:
    result = run(workspace, "linear_probe", corpus="tones:40", baselines=[])
    assert {line["measure"] for line in result.table} == {"accuracy"}
    assert "The control task was left out: 40 rows are too few" in (workspace / "events.jsonl").read_text("utf-8")


def test_mutual_information_finds_the_layer_that_knows(workspace: Path) -> None:
    result = run(workspace, "mutual_information", clusters=4, baselines=[])
    assert curve(result, "PNMI")[0] < 0.4 and curve(result, "PNMI")[1] > 0.9
    assert abs(curve(result, "adjusted")[0]) < 0.25 and curve(result, "label purity")[1] == pytest.approx(1.0)
    assert curve(result, "information")[1] == pytest.approx(
        curve(result, "PNMI")[1] * result.facts["label_entropy_nats"], rel=0.05
    )
    assert 0 < curve(result, "PNMI", "shuffled labels")[0] < 0.3
    with pytest.raises(Refused, match="too few for 60 clusters"):
        run(workspace, "mutual_information", clusters=60)


def test_an_attack_reaches_further_than_noise_of_its_strength(workspace: Path) -> None:
    result = run(workspace, "lnsr", upstreams="hubert-small", label="pitch", corpus="tones:40", clips=6, snr=20.0)
    values = {(line["curve"], line["layer"]): float(line["value"] or 0) for line in result.table}
    last = result.facts["attacked_layer"]
    assert values["attack", last] > values["random noise", last] > 0
    assert result.facts["ratio_of_the_sound"] == pytest.approx(0.1) and result.facts["clips_attacked"] == 6
    assert result.facts["probe_accuracy_under_attack"] <= result.facts["probe_accuracy"]


def test_the_attack_goes_where_the_probe_errs_more() -> None:
    model = upstream.load("hubert-small")
    generator = torch.Generator().manual_seed(0)
    wave = 0.1 * torch.randn(8000, generator=generator)
    width = 2 * model.card.dims[-1]
    weight = torch.randn(1, width, 3, generator=generator, dtype=torch.float64)
    none = torch.zeros(1)
    probe = probes.Probe(weight, torch.zeros(1, 3, dtype=torch.float64), none, none, none)
    truth = torch.tensor([1])
    step = 1e-4 * lnsr._gradient(model, probe, model.card.layers, wave, truth).sign()

    def loss(sound: torch.Tensor) -> float:
        row = lnsr.pooled(model.encode([sound]).clip(0)[-1].detach())
        return float(torch.nn.functional.cross_entropy(probe.scores(row[None, None])[0], truth))

    assert loss(wave + step) > loss(wave) > loss(wave - step)


def test_what_the_probe_of_the_attack_reads_is_what_rows_hold() -> None:
    x = torch.randn(30, 4)
    assert torch.allclose(lnsr.pooled(x), torch.cat([x.mean(0), x.std(0, correction=0)]), atol=1e-5)


def test_a_tier_that_is_missing_is_said(workspace: Path) -> None:
    with pytest.raises(Refused, match="no phone times"):
        run(workspace, "linear_probe", unit="phone", label="phone")
    with pytest.raises(Refused, match="no label 'emotion'"):
        run(workspace, "linear_probe", label="emotion")
