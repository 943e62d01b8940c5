"""Sample rates: against sines, against scipy, and block by block against in one piece."""

import numpy as np
import pytest
from scipy.signal import resample_poly

from engine.resample import Resampler, resample

RATES = [8_000, 11_025, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 44_099, 1_001]


def _sine(rate: int, hertz: float, seconds: float = 1.3) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate).astype(np.float32)


def _decibels(signal: np.ndarray, error: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(signal**2) / np.mean(error**2)))


@pytest.mark.parametrize("rate", RATES)
def test_a_sine_stays_a_sine(rate: int) -> None:
    hertz = min(1_000.0, 0.3 * rate)
    made = resample(_sine(rate, hertz), rate, 16_000)
    wanted = np.sin(2 * np.pi * hertz * np.arange(len(made)) / 16_000)
    assert len(made) == -(-int(rate * 1.3) * 16_000 // rate)
    assert _decibels(wanted[2000:-2000], (made - wanted)[2000:-2000]) > 90


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000])
def test_what_the_new_rate_cannot_hold_is_gone(rate: int) -> None:
    assert np.abs(resample(_sine(rate, 9_000), rate, 16_000)[2000:-2000]).max() < 1e-4


def test_it_agrees_with_scipy_where_both_pass() -> None:
    random = np.random.default_rng(0)
    bins = np.fft.rfft(random.standard_normal(48_000))
    bins[4_000:] = 0  # nothing above 4 kHz: both filters are flat there
    wave = np.fft.irfft(bins, 48_000).astype(np.float32)
    ours, theirs = resample(wave, 48_000, 16_000), resample_poly(wave, 1, 3, window=("kaiser", 12.0))
    assert len(ours) == len(theirs)
    assert _decibels(theirs[500:-500], (ours - theirs)[500:-500]) > 55  # scipy's filter is shorter: it is the limit


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 1_001])
def test_blocks_give_the_same_bits_as_one_piece(rate: int) -> None:
    random = np.random.default_rng(1)
    wave = random.standard_normal(int(rate * 1.3)).astype(np.float32)
    stream, pieces, at = Resampler(rate, 16_000), [], 0
    while at < len(wave):
        size = int(random.integers(1, rate // 3))
        pieces.append(stream.push(wave[at : at + size]))
        at += size
    whole = resample(wave, rate, 16_000)
    assert np.array_equal(np.concatenate([*pieces, stream.finish()]), whole)
    later = Resampler(rate, 16_000, first=9_001)
    assert np.array_equal(np.concatenate([later.push(wave[later.needs :]), later.finish()]), whole[9_001:])


def test_a_single_sample_and_none() -> None:
    assert len(resample(np.ones(1, np.float32), 48_000, 16_000)) == 1
    assert len(resample(np.zeros(0, np.float32), 48_000, 16_000)) == 0
