"""Noise, rooms and codecs put on clean speech. Times stay where they were: nothing here delays the direct sound."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from engine.audio import SAMPLE_RATE
from engine.resample import Samples, resample

Random = np.random.Generator


def white(length: int, random: Random) -> Samples:
    """Noise with the same power at every frequency."""
    return random.standard_normal(length, dtype=np.float32)


def pink(length: int, random: Random) -> Samples:
    """Noise whose power falls with 3 dB an octave, from 20 Hz on."""
    bins = np.fft.rfft(random.standard_normal(length))
    frequency = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    return np.fft.irfft(bins / np.sqrt(np.maximum(frequency, 20.0)), length).astype(np.float32)


NOISES: dict[str, Callable[[int, Random], Samples]] = {"white": white, "pink": pink}


def add_noise(wave: Samples, noise: Samples, decibels: float) -> Samples:
    """The wave with noise at a signal-to-noise ratio, both measured as mean power over the whole clip."""
    power = float(np.mean(np.square(wave, dtype=np.float64)))
    floor = float(np.mean(np.square(noise, dtype=np.float64)))
    gain = (power / max(floor, 1e-20) / 10 ** (decibels / 10)) ** 0.5
    return wave + noise * np.float32(gain)


# Reverberation time in seconds and the ratio of direct to reverberant energy in dB.
ROOMS = {"small": (0.25, 6.0), "large": (0.8, 0.0)}


def add_room(wave: Samples, room: str, random: Random) -> Samples:
    """The wave in a room: the direct sound and a tail of noise that decays exponentially (Polack's model), cut to length."""
    seconds, ratio = ROOMS[room]
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tail = random.standard_normal(len(time)) * np.exp(-6.9078 * time / seconds)
    tail[: round(0.002 * SAMPLE_RATE)] = 0.0  # the first reflection comes a little later
    tail *= np.sqrt(10 ** (-ratio / 10) / np.sum(np.square(tail)))
    tail[0] = 1.0
    size = 1 << (len(wave) + len(tail) - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(tail, size), size)[: len(wave)]
    return wet.astype(np.float32)


def narrow(wave: Samples) -> Samples:
    """What is left at a sample rate of 8 kHz."""
    return resample(resample(wave, SAMPLE_RATE, 8_000), 8_000, SAMPLE_RATE)[: len(wave)]


def telephone(wave: Samples) -> Samples:
    """A telephone line: 300 to 3,400 Hz at 8 kHz, 8 bits by the mu-law (G.711's curve, mu = 255)."""
    from scipy.signal import sosfiltfilt

    low = sosfiltfilt(_line(), resample(wave, SAMPLE_RATE, 8_000)).astype(np.float32)
    curve = np.sign(low) * np.log1p(255 * np.abs(np.clip(low, -1, 1))) / np.log(256)
    steps = np.rint(curve * 127) / 127
    heard = np.sign(steps) * np.expm1(np.abs(steps) * np.log(256)) / 255
    return resample(heard.astype(np.float32), 8_000, SAMPLE_RATE)[: len(wave)]


CODECS: dict[str, Callable[[Samples], Samples]] = {"narrow": narrow, "telephone": telephone}


@lru_cache(maxsize=1)
def _line() -> NDArray[np.float64]:
    from scipy.signal import butter

    return butter(4, (300, 3_400), "bandpass", fs=8_000, output="sos")  # type: ignore[no-any-return]
