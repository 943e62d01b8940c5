import numpy as np
import pytest
import torch

from engine.nets.resampling import Resampling
from engine.resample import resample


@pytest.mark.parametrize("rate", [24_000, 32_000, 44_100, 48_000])
def test_the_numbers_are_those_of_the_resampler_for_files(rate: int) -> None:
    resampling = Resampling(rate)
    for samples in (1, 2, 159, 160, 161, 5_003):
        wav = torch.randn(samples, generator=torch.Generator().manual_seed(samples))
        expected = resample(wav.numpy(), 16_000, rate)
        assert resampling.samples(samples) == len(expected)
        np.testing.assert_allclose(resampling(wav).numpy(), expected, atol=1e-5)


def test_a_tone_keeps_its_pitch_and_size() -> None:
    time = torch.arange(16_000) / 16_000
    tone = (2 * torch.pi * 1000 * time).sin()
    up = Resampling(44_100)(tone)
    expected = (2 * torch.pi * 1000 * torch.arange(44_100) / 44_100).sin()
    torch.testing.assert_close(up[500:-500], expected[500:-500], atol=1e-3, rtol=0)


def test_sound_at_the_rate_of_the_model_is_left_as_it_is() -> None:
    wav = torch.randn(100)
    assert Resampling(16_000)(wav) is wav


def test_a_gradient_reaches_the_sound() -> None:
    wav = torch.randn(400, requires_grad=True)
    (gradient,) = torch.autograd.grad(Resampling(48_000)(wav).square().sum(), wav)
    assert (gradient.abs() > 0).all()
