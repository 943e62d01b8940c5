"""Noise, rooms and codecs do what they say, and delay nothing."""

import numpy as np
import pytest

from engine.audio import SAMPLE_RATE
from engine.synthesis import conditions


@pytest.fixture
def click() -> np.ndarray:
    """A short burst in silence: where it is afterwards shows a delay."""
    wave = np.zeros(SAMPLE_RATE, np.float32)
    wave[8_000:8_040] = 0.5 * np.hanning(40)
    return wave


@pytest.mark.parametrize("kind", conditions.NOISES)
@pytest.mark.parametrize("decibels", [-5.0, 0.0, 20.0])
def test_noise_has_its_ratio(kind: str, decibels: float) -> None:
    random = np.random.default_rng(0)
    wave = np.sin(np.arange(16_000) * 0.1).astype(np.float32)
    noisy = conditions.add_noise(wave, conditions.NOISES[kind](len(wave), random), decibels)
    added = (noisy - wave).astype(np.float64)
    assert 10 * np.log10(np.mean(wave.astype(np.float64) ** 2) / np.mean(added**2)) == pytest.approx(decibels, abs=0.01)


def test_pink_falls_three_decibels_an_octave() -> None:
    power = np.abs(np.fft.rfft(conditions.pink(2**18, np.random.default_rng(0)))) ** 2
    hertz = np.fft.rfftfreq(2**18, 1 / SAMPLE_RATE)
    band = [10 * np.log10(power[(hertz > low) & (hertz < 2 * low)].mean()) for low in (100, 200, 400, 800, 1600)]
    assert np.diff(band) == pytest.approx(-3.01, abs=0.3)


@pytest.mark.parametrize("room", conditions.ROOMS)
def test_a_room_has_its_ratio_and_decay(room: str, click: np.ndarray) -> None:
    seconds, ratio = conditions.ROOMS[room]
    impulse = np.zeros(2 * SAMPLE_RATE, np.float32)
    impulse[0] = 1.0
    answer = conditions.add_room(impulse, room, np.random.default_rng(0)).astype(np.float64)
    assert answer[0] == pytest.approx(1.0, abs=1e-5)
    assert 10 * np.log10(answer[0] ** 2 / np.sum(answer[1:] ** 2)) == pytest.approx(ratio, abs=0.1)
    # Schroeder (1965): the integrated tail falls 60 dB in the reverberation time.
    tail = 10 * np.log10(np.cumsum(answer[:0:-1] ** 2)[::-1] + 1e-30)
    early, late = round(0.1 * seconds * SAMPLE_RATE), round(0.5 * seconds * SAMPLE_RATE)
    assert (tail[early] - tail[late]) / 0.4 == pytest.approx(60, abs=3)
    assert np.argmax(conditions.add_room(click, room, np.random.default_rng(0))) == np.argmax(click)


@pytest.mark.parametrize("codec", conditions.CODECS)
def test_a_codec_takes_its_band_and_delays_nothing(codec: str, click: np.ndarray) -> None:
    heard = conditions.CODECS[codec](click)
    assert len(heard) == len(click) and heard.dtype == np.float32
    assert abs(int(np.argmax(np.abs(heard))) - int(np.argmax(click))) <= 12  # within the burst
    power = np.abs(np.fft.rfft(conditions.CODECS[codec](conditions.white(SAMPLE_RATE * 2, np.random.default_rng(0)) * 0.1)))
    hertz = np.fft.rfftfreq(SAMPLE_RATE * 2, 1 / SAMPLE_RATE)
    kept = power[(hertz > 500) & (hertz < 3_000)].mean()
    assert power[hertz > 4_500].mean() < 0.02 * kept
    assert (power[hertz < 100].mean() < 0.3 * kept) == (codec == "telephone")
