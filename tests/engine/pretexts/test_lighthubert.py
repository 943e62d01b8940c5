"""LightHuBERT: what a part of a network is, what the loss is, by hand; which parts are drawn and kept; it learns."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from app import workbench
from engine import upstream
from engine.errors import Unknown
from engine.job import JobStore
from engine.nets.following import normalised
from engine.nets.within import cut
from engine.pretext import Batch
from engine.pretexts.lighthubert import Lighthubert, OnceForAll
from engine.run import Context

TINY: dict[str, Any] = {
    "corpus": "spoken:digits?voices=4",
    "teacher": "hubert-small",
    "top": 2,
    "front": "features",
    "nearby": 5,
    "steps": 30,
    "batch_seconds": 6,
    "rate": 0.003,
    "blocks": 3,
    "width": 32,
    "heads": 4,
    "inner": 64,
    "widths": (16, 24),
    "ratios": (1.5, 2.0),
    "depths": (2, 3),
    "dropout": 0.0,
    "checkpoint_every": 10,
    "validate_every": 10,
}
SOUND = {**TINY, "front": "waveform", "channels": 16, "width": 64, "inner": 128, "widths": (32, 48)}
KINDS = pytest.mark.parametrize("settings", [TINY, SOUND], ids=["features", "waveform"])


def objective(settings: dict[str, Any]) -> OnceForAll:
    spec = Lighthubert(**settings)
    torch.manual_seed(3)
    return OnceForAll(spec, spec.network(), spec.taught_by(torch.device("cpu")))


def batch(made: OnceForAll) -> Batch:
    draw = torch.Generator().manual_seed(1)
    waves = [0.1 * torch.randn(samples, generator=draw) for samples in (8_000, 11_100)]
    return Batch([made.prepare(wave) for wave in waves], [0, 1], [11, 12])


@KINDS
def test_a_part_is_the_first_channels_heads_and_blocks(settings: dict[str, Any]) -> None:
    """Of queries, keys and values, which lie in one weight, each by itself."""
    spec = Lighthubert(**settings)
    torch.manual_seed(5)
    whole = spec.network()
    part = spec.named()["smallest"].network()
    weights = cut(whole, part)
    for name, weight in weights.items():
        held = dict(whole.named_parameters())[name]
        assert weight.shape == dict(part.named_parameters())[name].shape
        if ".qkv." not in name:
            assert torch.equal(weight, held[tuple(slice(size) for size in weight.shape)]), name
        else:
            third, kept = len(held) // 3, len(weight) // 3
            for one in range(3):  # queries, keys and values
                rows = held[one * third : one * third + kept]
                assert torch.equal(
                    weight[one * kept : (one + 1) * kept], rows[tuple(slice(s) for s in (kept, *weight.shape[1:]))]
                )


@KINDS
def test_what_a_part_learns_the_whole_learns(settings: dict[str, Any]) -> None:
    made = objective(settings).train()
    made.drawn = 1
    width = made._parts[0].network.width
    made(batch(made)).total.backward()
    assert made.head.weight.grad is not None and not made.head.weight.grad[:, width:].any()
    assert made.head.weight.grad[:, :width].any() and made.mask.grad is not None and not made.mask.grad[width:].any()
    moved = {name for name, weight in made.network.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert any("blocks.0" in name for name in moved)
    for name, weight in made.network.named_parameters():
        if "feed_norm" in name and weight.grad is not None:
            assert not weight.grad[width:].any(), name


@torch.no_grad()
@KINDS
def test_the_loss_by_hand(settings: dict[str, Any]) -> None:
    """Of the whole, and of a part that is built by itself from the weights that are cut for it."""
    made = objective(settings)
    clips = batch(made)
    teacher = upstream.load("hubert-small")
    for drawn, part in enumerate(made.spec.nested):
        network = part.network()
        network.load_state_dict(cut(made.network, network))
        made.train().drawn = drawn
        width, errors = network.width, []
        for clip, hide in zip(clips.clips, made.hides(clips), strict=True):
            local = network.local([clip[0]])[0] if made.learns_front else clip[0]
            seen = torch.where(hide[:, None], made.mask[:width], network.projected(local))
            state = network.contextual(seen, [len(local)])[-1]
            frames = min(len(state), len(clip[1]))
            guess = state[:frames][hide[:frames]] @ made.head.weight[:, :width].T
            errors.append((guess - clip[1][:frames][hide[:frames]]).square().mean(1))
        loss = made(clips)
        assert loss.count == len(torch.cat(errors))
        assert float(loss.total) == pytest.approx(float(torch.cat(errors).sum()), rel=1e-4), drawn
    wave = torch.zeros(9_000).normal_(generator=torch.Generator().manual_seed(2)) * 0.1
    states = teacher.encode([wave]).clip(0)
    wanted = (normalised(states[3], [len(states[3])]) + normalised(states[4], [len(states[4])])) / 2
    assert torch.allclose(made.prepare(wave)[1], wanted, atol=1e-4)


def test_the_whole_learns_alone_and_then_every_part_does() -> None:
    made = objective(TINY)
    drawn = []
    for step in range(400):
        made.begin(step, 400)
        drawn.append(made.drawn)
    assert set(drawn[:200]) == {0} and set(drawn[200:]) == set(range(12))
    again = objective(TINY)
    again.begin(317, 400)
    assert again.drawn == drawn[317], "a step alone decides, so that a resumed training draws the same"
    made.eval().drawn = 5
    with torch.no_grad():
        loss = made(batch(made)).total
        made.drawn = 0
        assert torch.equal(made(batch(made)).total, loss), "what is validated is the whole"


def test_parts_are_named_and_none_is_twice() -> None:
    spec = Lighthubert(**TINY)
    sizes = [(part.width, part.heads, part.inner, part.blocks) for part in spec.nested]
    assert len(sizes) == len(set(sizes)) == 12 and sizes[0] == (32, 4, 64, 3)
    named = {called: (part.width, part.heads, part.inner, part.blocks) for called, part in spec.named().items()}
    assert named == {"width-16": (16, 2, 32, 3), "width-24": (24, 3, 48, 3), "smallest": (16, 2, 24, 2)}
    published = Lighthubert()
    assert [(part.width, part.inner) for part in published.nested] == [
        (768, 3072), (768, 2688), (512, 1792), (512, 2048), (640, 2240), (640, 2560)
    ]  # fmt: skip


def test_it_learns_and_its_parts_are_upstreams(workspace: Path) -> None:
    job = JobStore().submit(workbench.resolve({"run": "lighthubert", **TINY}).document)
    spec = workbench.resolve(job.document)
    assert spec.needs() == []
    result = spec.run(Context(job.folder, device="cpu"))
    result.save(job.result_file)
    assert result.facts["last_valid_loss"] < 0.95 * result.facts["first_loss"]
    assert result.facts["nested"] == {
        "number": 11,
        "kept": {"width-16": [16, 3, 32], "width-24": [24, 3, 48], "smallest": [16, 2, 24]},
    }
    whole = upstream.load(f"job:{job.id}").state_dict()
    for which, width, layers in (("width-16", 16, 3), ("width-24", 24, 3), ("smallest", 16, 2)):
        card = upstream.find(f"job:{job.id}@{which}")
        assert card.layers == layers and set(card.dims) == {width} and card.family == "LightHuBERT"
        part = card.open(card).state_dict()
        name = "transformer.blocks.1.attention.key.weight"
        assert torch.equal(part[name], whole[name][:width, :width])
        assert upstream.load(f"random:job:{job.id}@{which}").card.dims == card.dims
    best = job.folder / "again"
    spec.keep(spec.network(), Context(best, device="cpu"), "best", 1)
    assert [card.parent.name for card in best.glob("artifacts/*/card.json")] == ["best"], "parts are of what is ready"
    with pytest.raises(Unknown, match="Did you mean width-24 or width-16"):
        upstream.find(f"job:{job.id}@width-99")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"widths": (12,)}, "a part cannot be 12 wide: that is no multiple of a head (8) below 32"),
        ({"widths": (32,)}, "a part cannot be 32 wide"),
        ({"depths": (4,)}, "a part cannot have 4 of 3 blocks"),
        ({"ratios": (3.0, 1.0)}, "feed-forward nets of 64 hold no 3 times a width of 32"),
        ({"ratios": (-1.0, 2.0)}, "feed-forward nets of 64 hold no -1 times a width of 32"),
        ({"recompute": True}, "what the blocks gave cannot be computed again"),
    ],
)
def test_parts_that_cannot_be_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Lighthubert(**{**TINY, **wrong})
    assert said in str(caught.value)
    assert "the convolution of positions has 16 groups" in str(
        pytest.raises(ValidationError, Lighthubert, **{**SOUND, "heads": 8, "widths": (40,)}).value
    )


def test_a_teacher_with_too_few_layers_is_said() -> None:
    assert Lighthubert(**{**TINY, "top": 5}).needs() == ["hubert-small has only 4 layers, so 5 of them cannot give targets."]
