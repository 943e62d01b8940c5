"""The shared network: pieces make the same whole, and the statistics of a clip are those of the clip."""

from pathlib import Path

import pytest
import tiny
import torch

from engine import upstream
from engine.nets import front, wav2vec2
from engine.nets.wav2vec2 import Shape


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
