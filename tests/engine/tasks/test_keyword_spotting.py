"""Keyword spotting in its three modes, on a corpus of tones whose answer is known."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from app import workbench
from engine import upstream
from engine.errors import Interrupted, Refused
from engine.nets.heads import MeanPoolHead
from engine.run import Context, Result
from engine.settings import HOUSE
from engine.task import Batch, FrozenStates, Learner
from engine.tasks.keyword_spotting import KeywordSpotting

PAGE = (HOUSE / "docs" / "extend.md").read_text("utf-8")


@pytest.fixture(autouse=True)
def tones(workspace: Path) -> Iterator[None]:
    """The corpus and the upstream of the page on extending."""
    for name in ("corpora/tones.py", "upstreams/loudness.py"):
        file = workspace / "extensions" / name
        file.parent.mkdir(parents=True)
        file.write_text(PAGE.split(f"`{name}`")[1].split("```python\n")[1].split("```")[0], "utf-8")
    yield


def spec(**changes: object) -> KeywordSpotting:
    values = {"run": "keyword_spotting", "upstream": "loudness", "corpus": "tones:40", "label": "loudness", "batch": 8}
    made = workbench.resolve({**values, "steps": 40, "rate": 0.03, "validate_every": 10, "checkpoint_every": 10, **changes})
    assert isinstance(made, KeywordSpotting)
    return made


def run(folder: Path, **changes: object) -> Result:
    folder.mkdir(exist_ok=True)
    return spec(**changes).run(Context(folder, device="cpu"))


@pytest.mark.parametrize("mode", ["weighted sum", "one layer", "fine-tune"])
def test_every_mode_learns(tmp_path: Path, mode: str) -> None:
    result = run(tmp_path / "run", mode=mode)
    assert result.facts["test_accuracy"] == 1.0
    parts = {line["part"] for line in result.table}
    assert parts == ({"curve", "score"} if mode == "one layer" else {"curve", "score", "weights"})
    weights = [float(line["weight"] or 0) for line in result.table if line["part"] == "weights"]
    assert mode == "one layer" or sum(weights) == pytest.approx(1.0)
    assert {(line["split"], line["step"]) for line in result.table if line["part"] == "score"} == {
        ("valid", result.facts["best_step"]),
        ("test", result.facts["best_step"]),
    }


def test_what_cannot_be_heard_is_not_learnt(tmp_path: Path) -> None:
    assert run(tmp_path / "run", label="pitch").facts["test_accuracy"] <= 0.75


def test_fine_tuning_leaves_the_upstream_that_others_use_alone(tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in upstream.load("hubert-small").state_dict().items()}
    run(tmp_path / "run", upstream="hubert-small", mode="fine-tune", steps=2, corpus="tones:10")
    after = upstream.load("hubert-small").state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_fine_tuning_trains_the_upstream(tmp_path: Path) -> None:
    made = spec(upstream="hubert-small", mode="fine-tune")
    learner = Learner(made, upstream.find("hubert-small"), 2)
    waves = [torch.randn(8000, generator=torch.Generator().manual_seed(0))] * 2
    learner(Batch(waves, torch.tensor([0, 1]))).total.backward()
    assert learner.upstream is not None
    assert all(weight.grad is not None and float(weight.grad.abs().sum()) > 0 for weight in learner.upstream.parameters())


def test_stopped_and_resumed_it_ends_the_same(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    folder = tmp_path / "torn"
    folder.mkdir()
    calls = iter(range(1000))

    def stop() -> None:
        if next(calls) == 25:
            raise Interrupted("stop")

    with pytest.raises(Interrupted):
        spec().run(Context(folder, device="cpu", stop=stop))
    assert spec().run(Context(folder, device="cpu")).table == whole.table


def test_the_mean_of_a_linear_map_is_the_linear_map_of_the_mean() -> None:
    torch.manual_seed(0)
    head = MeanPoolHead(6, 3, hidden=5)
    x = torch.randn(2, 10, 6)
    lengths = torch.tensor([10, 4])
    means = torch.stack([x[0].mean(0), x[1, :4].mean(0)])[:, None]
    assert torch.allclose(head(x, lengths), head(means, torch.tensor([1, 1])), atol=1e-6)


def test_frozen_states_are_the_same_bits_in_any_order() -> None:
    from engine import corpus

    known = list(corpus.find("tones:10").utterances())
    model = upstream.load("hubert-small")
    one, two = FrozenStates(model, known, [0, 2]), FrozenStates(model, known, [0, 2])
    forward = [one[index] for index in range(10)]
    backward = [two[index] for index in reversed(range(10))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forward, backward, strict=True))
    assert forward[0].shape[0] == 2


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="No utterance of tones:40 has a label 'command'.*loudness, pitch"):
        run(tmp_path / "a", label="command")
    with pytest.raises(Refused, match="no test clips|at least two"):
        run(tmp_path / "b", corpus="tones:1")
    assert "layers 0 to 1" in spec(mode="one layer", layer=7).needs()[0]
