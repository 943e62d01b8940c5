"""The shared network: pieces make the same whole, and the statistics of a clip are those of the clip."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from engine import upstream
from engine.nets import front, wav2vec2
from engine.nets.wav2vec2 import Shape
from engine.upstream import Card


@pytest.mark.parametrize("kind", ["wav2vec2", "wav2vec2-stable", "wavlm"])
@torch.inference_mode()
def test_a_long_clip_goes_through_in_pieces_without_a_seam(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.checkpoint(tmp_path, kind)
    model = upstream.load(f"hf:{tmp_path}")
    wave = 0.2 * torch.randn(40_000, generator=torch.Generator().manual_seed(0))
    whole = model.encode([wave])
    monkeypatch.setattr(front, "FRONT_FRAMES", 7)
    monkeypatch.setattr(wav2vec2, "BIAS_NUMBERS", 2_000)
    for state, expected in zip(model.encode([wave]).states, whole.states, strict=True):
        torch.testing.assert_close(state, expected, atol=1e-5, rtol=1e-5)


def test_arithmetic_of_the_convolutions() -> None:
    shape = Shape(8, 1, 1, 8, ((8, 10, 5), *((8, 3, 2),) * 4, *((8, 2, 2),) * 2))
    assert (shape.hop, shape.shortest) == (320, 400)
    # 49 frames for one second: (16000 - 400) // 320 + 1.
    assert [shape.frames(samples) for samples in (400, 719, 720, 16_000)] == [1, 1, 2, 49]


def test_group_norm_worked_into_the_filters_is_group_norm(tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path, "hubert")
    model = upstream.load(f"hf:{tmp_path}")
    first = model.front[0]
    wave = 0.01 * torch.randn(3_000, generator=torch.Generator().manual_seed(0)) + 0.5
    raw = torch.nn.functional.conv1d(wave[None, None], first.weight[:, None], stride=5)
    expected = torch.nn.functional.group_norm(raw, raw.shape[1], first.norm.weight, first.norm.bias)
    weight, bias = first.folded(wave, 5)
    got = torch.nn.functional.conv1d(wave[None, None], weight[:, None], bias, stride=5)
    torch.testing.assert_close(got, expected, atol=1e-3, rtol=1e-3)


def network(**settings: Any) -> wav2vec2.Wav2Vec2:
    torch.manual_seed(0)
    shape = Shape(16, 3, 2, 24, tiny.CONVOLUTIONS, position_kernel=16, position_groups=4, **settings)
    return wav2vec2.Wav2Vec2(Card("tiny", "", 3, (16,) * 4, shape.hop, shape.shortest), shape)


def clips(*lengths: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [0.1 * torch.randn(length, generator=generator) for length in lengths]


@pytest.mark.parametrize(
    "settings", [{}, {"buckets": 32, "furthest": 40}, {"squeeze": 2}], ids=["plain", "buckets", "squeezed"]
)
@torch.no_grad()
def test_local_frames_then_their_context_are_the_whole_network(settings: dict[str, int]) -> None:
    model = network(**settings).eval()
    waves = clips(3_000, 9_000, 1_040)
    local = model.local(waves)
    lengths = [len(each) for each in local]
    assert lengths == [model.shape.frames(len(wave)) for wave in waves]
    states = model.contextual(model.projected(torch.cat(local)), lengths)
    hidden = model.encode(waves)
    for layer, state in enumerate(states):
        parts = state.split([length // model.shape.squeeze for length in lengths])
        for index, part in enumerate(parts):
            assert torch.equal(part, hidden.clip(index)[layer])


@torch.no_grad()
def test_values_and_blocks_are_dropped_while_it_learns_and_only_then() -> None:
    waves = clips(4_000)
    whole = network().eval().encode(waves).states
    for settings in ({"dropout": 0.5}, {"layer_drop": 0.5}):
        model = network(**settings)
        assert all(torch.equal(a, b) for a, b in zip(model.eval().encode(waves).states, whole, strict=True))
        model.train()
        drawn = [model.encode(waves).states[-1] for _ in range(8)]
        assert len({float(state.square().mean() + state[0, 0, 0]) for state in drawn}) > 2
    nothing_left = network(layer_drop=0.999999).train().encode(waves).states
    assert len(nothing_left) == 4 and all(torch.equal(state, nothing_left[0]) for state in nothing_left)
    assert torch.equal(nothing_left[0], whole[0])


@torch.no_grad()
def test_fresh_scores_of_a_quantizer_differ_enough_to_choose_by() -> None:
    model = network(codebooks=2, entries=64)
    assert model.quantizer is not None
    assert float(model.quantizer.weight.std()) == pytest.approx(1, abs=0.1)
    assert float(model.projection.weight.std()) == pytest.approx(0.02, abs=0.005)
