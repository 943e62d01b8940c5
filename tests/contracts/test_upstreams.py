"""What every upstream promises, swept over all that need no download, and over tiny checkpoints of each family that does."""

import gc
import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor, nn

from engine import upstream
from engine.errors import Refused
from engine.settings import settings
from engine.upstream import Upstream


def built_in() -> list[str]:
    """The upstreams that are usable in an empty workspace."""
    before = os.environ.get("AUSCULT_WORKSPACE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AUSCULT_WORKSPACE"] = folder
        settings.cache_clear()
        names = [card.name for card in upstream.cards() if card.here]
    if before is None:
        del os.environ["AUSCULT_WORKSPACE"]
    else:
        os.environ["AUSCULT_WORKSPACE"] = before
    settings.cache_clear()
    return names


CHECKPOINTS = [f"tiny {kind}" for kind in ("wav2vec2", "wav2vec2-stable", "hubert-batch-norm", "wavlm", "data2vec")]
NAMES = [*built_in(), *CHECKPOINTS]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for name in CHECKPOINTS:
        kind = name.removeprefix("tiny ")
        folders[name] = tmp_path_factory.mktemp("checkpoints") / kind
        tiny.checkpoint(folders[name], kind, normalise=kind == "wav2vec2-stable")
    return folders


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest, checkpoints: dict[str, Path]) -> Iterator[Upstream]:
    name = request.param
    yield upstream.load(f"hf:{checkpoints[name]}" if name in checkpoints else name)


def waves(*lengths: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [0.2 * torch.randn(length, generator=generator) + 0.05 for length in lengths]


@torch.inference_mode()
def test_a_clip_has_the_same_states_alone_and_in_company(model: Upstream) -> None:
    clips = waves(9_000, model.card.shortest, 30_000, 16_001, model.card.shortest + 1)
    clips[2] *= 3  # a loud neighbour
    together = model.encode(clips)
    for number, clip in enumerate(clips):
        for state, alone in zip(together.clip(number), model.encode([clip]).clip(0), strict=True):
            torch.testing.assert_close(state, alone, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_shapes_are_those_of_the_card_and_lengths_are_exact(model: Upstream) -> None:
    card = model.card
    lengths = [card.shortest, card.shortest + card.hop - 1, card.shortest + card.hop, 16_000, 12_345]
    hidden = model.encode(waves(*lengths))
    assert hidden.lengths.tolist() == [model.frames(samples) for samples in lengths]
    assert hidden.lengths[0] >= 1
    assert len(hidden.states) == card.layers + 1 == len(card.dims)
    for state, dim in zip(hidden.states, card.dims, strict=True):
        assert state.shape == (len(lengths), int(hidden.lengths.max()), dim)
        assert state.dtype == torch.float32
    for number, samples in enumerate(lengths):
        alone = model.encode(waves(*lengths)[number : number + 1])
        assert alone.states[0].shape[1] == model.frames(samples)


def test_gradients_reach_the_sound_and_every_state(model: Upstream) -> None:
    clip = waves(8_000)[0].requires_grad_()
    for state in model.encode([clip, *waves(4_000)]).states:
        (gradient,) = torch.autograd.grad(state[0].square().sum(), clip, retain_graph=True)
        assert torch.isfinite(gradient).all()
        assert gradient.abs().sum() > 0


@torch.inference_mode()
def test_the_same_sound_gives_the_same_bits(model: Upstream) -> None:
    assert not model.training
    first, again = model.encode(waves(9_000, 5_000)), model.encode(waves(9_000, 5_000))
    assert all(torch.equal(one, other) for one, other in zip(first.states, again.states, strict=True))


@torch.inference_mode()
def test_the_shortest_legal_clip_works_and_one_sample_less_is_refused(model: Upstream) -> None:
    shortest = model.card.shortest
    assert model.encode(waves(shortest)).lengths.tolist() == [model.frames(shortest)]
    with pytest.raises(Refused, match=f"Clip 1 has {shortest - 1} samples; .* needs at least {shortest} samples"):
        model.encode(waves(16_000, shortest - 1))


@torch.inference_mode()
def test_silence_and_extremes_are_finite(model: Upstream) -> None:
    clips = [
        torch.zeros(5_000),
        torch.ones(5_000),
        1e-20 * waves(5_000)[0],
        torch.zeros(model.card.shortest),
        waves(5_000)[0].sign(),
    ]
    for state in model.encode(clips).states:
        assert torch.isfinite(state).all()


def hooks(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def test_nothing_stays_behind_after_an_error(model: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = model.encode(waves(6_000)).states[-1].detach()
    before = hooks(model)
    last = list(model.modules())[-1]
    with monkeypatch.context() as broken:

        def fail(*given: object, **named: object) -> None:
            raise RuntimeError("Broken on purpose.")

        broken.setattr(last, "forward", fail)
        with pytest.raises(RuntimeError, match="on purpose"):
            model.encode(waves(6_000))
    assert hooks(model) == before
    torch.testing.assert_close(model.encode(waves(6_000)).states[-1].detach(), expected)


@torch.inference_mode()
def test_attention_maps_are_distributions_over_the_clip(model: Upstream) -> None:
    if not model.card.attention:
        with pytest.raises(Refused, match="no attention maps"):
            model.encode(waves(8_000), attention=True)
        return
    hidden = model.encode(waves(8_000, 3_000), attention=True)
    assert hidden.attention is not None
    assert len(hidden.attention) == model.card.layers
    for maps in hidden.attention:
        for clip, frames in enumerate(hidden.lengths.tolist()):
            torch.testing.assert_close(maps[clip, :, :frames, :frames].sum(dim=-1), torch.ones(maps.shape[1], frames))
            assert maps[clip, :, :frames, frames:].abs().sum() == 0
    for with_maps, without in zip(hidden.states, model.encode(waves(8_000, 3_000)).states, strict=True):
        torch.testing.assert_close(with_maps, without, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_bfloat16_is_near(model: Upstream) -> None:
    exact = model.encode(waves(16_000, 7_000))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model.encode(waves(16_000, 7_000))
    for number in range(2):
        for state, expected in zip(low.clip(number), exact.clip(number), strict=True):
            assert state.dtype == torch.float32
            assert torch.linalg.norm(state - expected) <= 2e-2 * torch.linalg.norm(expected)


@pytest.mark.parametrize("name", ["fbank", "mfcc", "spectrogram", "mel", "one block"])
@torch.inference_mode()
def test_ten_minutes_at_once_in_bounded_memory(name: str, tmp_path: Path) -> None:
    if name == "one block":
        tiny.checkpoint(tmp_path, "wav2vec2-one-block")
    model = upstream.load(f"hf:{tmp_path}" if name == "one block" else name)
    clip = waves(600 * 16_000)[0]
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    hidden = model.encode([clip])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert hidden.lengths.tolist() == [model.frames(clip.numel())]
    assert torch.isfinite(hidden.states[-1]).all()
    assert grown < 1.5e9
