"""What the sound itself says, frame by frame: loudness, pitch, voicing, harmonicity, crossings and two of its spectrum.

Every track takes a mono wave at 16 kHz and gives a value for each 10 ms: frame i stands for the samples from 160 i to
160 (i + 1), seen through a window around their middle. A wave that ends within a frame gives that frame too.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.audio import SAMPLE_RATE

HOP = 160
FRAME = HOP / SAMPLE_RATE  # seconds
WINDOW = 400  # 25 ms
FFT = 512
QUIET = 1e-10  # power of what counts as silence, 100 dB below full scale
BLOCK = 2048  # frames worked on at a time: bounds the memory that a long wave needs

# Boersma's search for the period, with the settings of his paper; times in samples.
LOWEST, HIGHEST = 60.0, 600.0  # Hz
PERIODS = 3  # of the lowest pitch in a window
FINER = 4  # lags for each sample
CANDIDATES = 8
VOICED, SILENT = 0.45, 0.03
OCTAVE_COST, JUMP_COST, SWITCH_COST = 0.01, 0.35, 0.14

TRACKS = {
    "pitch": "semitones above 27.5 Hz, where the sound is voiced",
    "loudness": "dB, 0 at full scale",
    "voicing": "from 0 to 1",
    "alpha ratio": "dB",
    "zero crossings": "share of neighbouring samples",
    "rasta": "sum of compressed bands",
    "harmonicity": "dB",
}

Numbers = np.ndarray[Any, np.dtype[np.float64]]


def frames(samples: int) -> int:
    """Frames of a wave of so many samples."""
    return math.ceil(samples / HOP)


def tracks(wave: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
    """The named tracks (frames,) of a wave, each as TRACKS says it."""
    names = list(names)
    if wave.dim() != 1 or not len(wave):
        raise ValueError(f"A track is of one mono wave with samples, not of one of shape {tuple(wave.shape)}.")
    made: dict[str, Tensor] = {}
    if {"pitch", "voicing", "harmonicity"} & set(names):
        found = periodicity(wave)
        made = {"pitch": 12 * torch.log2(found.pitch / 27.5), "voicing": found.voicing, "harmonicity": found.harmonicity}
    others = {"loudness": loudness, "alpha ratio": alpha_ratio, "zero crossings": zero_crossings, "rasta": rasta}
    return {name: made[name] if name in made else others[name](wave) for name in names}


def over(track: Numbers, starts: Numbers, ends: Numbers) -> Numbers:
    """Mean of a track over the frames whose middle lies in each stretch of seconds, at least one; NaN is left out."""
    low = np.ceil(starts / FRAME - 0.5 - 1e-6).astype(int).clip(0, len(track) - 1)
    high = np.ceil(ends / FRAME - 0.5 - 1e-6).astype(int).clip(low + 1, len(track))
    known = ~np.isnan(track)
    total = np.concatenate([[0.0], np.where(known, track, 0.0).cumsum()])
    count = np.concatenate([[0], known.cumsum()])
    counted = count[high] - count[low]
    mean: Numbers = np.where(counted > 0, (total[high] - total[low]) / counted.clip(1), np.nan)
    return mean


def loudness(wave: Tensor) -> Tensor:
    """Root mean square of 25 ms as a level in dB, 0 at full scale; softer than -70 is -70, so that pauses weigh alike."""
    return 10 * torch.log10(_means(wave.double().square(), len(wave)).clamp_min(1e-7)).float()


def zero_crossings(wave: Tensor) -> Tensor:
    """Share of neighbouring samples within 25 ms that differ in sign: 2 f / rate for a tone of f Hz. Zero is positive."""
    negative = wave < 0
    return _means((negative[1:] != negative[:-1]).double(), len(wave)).float()


def alpha_ratio(wave: Tensor) -> Tensor:
    """Energy from 50 to 1000 Hz over that from 1 to 5 kHz, in dB (Eyben et al. 2016, the Geneva minimalistic set)."""
    hertz = torch.arange(FFT // 2 + 1, device=wave.device) * (SAMPLE_RATE / FFT)
    low, high = (hertz >= 50) & (hertz <= 1000), (hertz > 1000) & (hertz <= 5000)
    energy = _spectrum(wave, torch.stack([low, high], 1).double()) + QUIET
    return 10 * torch.log10(energy[:, 0] / energy[:, 1]).float()


def rasta(wave: Tensor) -> Tensor:
    """Sum over critical bands of the auditory spectrum after the RASTA filter (Hermansky and Morgan 1994).

    Bands, equal loudness and the power of 0.33 are those of perceptual linear prediction (Hermansky 1990). The filter lets
    through what changes between about 1 and 12 times a second: gain and colour of a recording fall out.
    """
    from scipy.signal import lfilter, lfilter_zi

    bands, equal = _critical_bands()
    level = torch.log(_spectrum(wave, bands.to(wave.device)) + QUIET).cpu().numpy()
    # The slope over five frames, leaking away; read two frames later, so that it is centred on its frame.
    over, under = np.array([0.2, 0.1, 0.0, -0.1, -0.2]), np.array([1.0, -0.98])
    level = np.concatenate([level, level[-1:], level[-1:]])
    filtered, _ = lfilter(over, under, level, axis=0, zi=lfilter_zi(over, under)[:, None] * level[:1])
    heard = torch.from_numpy(filtered[2:]) + equal.log()
    return (0.33 * heard).exp().sum(1).float().to(wave.device)


@dataclass(frozen=True)
class Periodicity:
    """How periodic the sound is around each frame, and with what period."""

    pitch: Tensor  # (frames,) Hz, NaN where the sound is not voiced
    voicing: Tensor  # (frames,) the highest autocorrelation at a lag of a possible period, from 0 to 1

    @property
    def harmonicity(self) -> Tensor:
        """Energy of the periodic part over that of the rest, in dB from -20 to 50 (Boersma 1993): 10 log10(r / (1 - r))."""
        r = self.voicing.double().clamp(0.01, 0.99999)
        return 10 * torch.log10(r / (1 - r)).float().clamp(-20, 50)


def periodicity(wave: Tensor) -> Periodicity:
    """Pitch from 60 to 600 Hz by the autocorrelation of Boersma 1993, "Accurate short-term analysis of the fundamental
    frequency and the harmonics-to-noise ratio of a sampled sound", with the path of least cost through the frames.

    The autocorrelation of 50 ms under a Hann window is divided by that of the window; windows at either end lie inside the
    wave. A wave shorter than 50 ms is one window, and its lowest pitch has three periods in it.
    """
    count = frames(len(wave))
    width = min(len(wave), math.ceil(PERIODS * SAMPLE_RATE / LOWEST))
    first, last = math.floor(FINER * SAMPLE_RATE / HIGHEST), FINER * (width // PERIODS)
    if last <= first:
        return Periodicity(wave.new_full((count,), math.nan), wave.new_zeros(count))
    every = [_peaks(cuts, first, last) for cuts in _cuts(wave, width)]
    lags, heights, loudest = (torch.cat(parts) for parts in zip(*every, strict=True))
    path = _path(lags.cpu().numpy(), heights.cpu().numpy(), loudest.cpu().numpy(), last / FINER)
    pitch = torch.from_numpy(path).to(wave.device, torch.float32)
    return Periodicity(pitch, heights.amax(1).clamp(0, 1))


def signal_to_noise(wave: Tensor) -> float:
    """Speech over background in dB, from -20 to 60: the quietest tenth of the frames is taken for background alone.

    Frames are 25 ms; the level of the background is the tenth percentile of their power. A clip without a pause gives too
    low a number, as its quietest speech is taken for noise, and noise that comes and goes too high a one. NaN for silence.
    """
    power = np.asarray(_means(wave.double().square(), len(wave)).cpu())
    whole, noise = float(power.mean()), float(np.quantile(power, 0.1)) + 1e-3 * QUIET
    return min(60.0, 10 * math.log10(max(whole - noise, 0.01 * noise) / noise)) if whole > QUIET else math.nan


def _cuts(wave: Tensor, width: int) -> Iterator[Tensor]:
    """Blocks of (frames, width): the samples around the middle of each frame, or the first or last ones at the ends."""
    starts = torch.arange(frames(len(wave)), device=wave.device) * HOP + (HOP - width) // 2
    wave = torch.nn.functional.pad(wave.float(), (0, max(0, width - len(wave))))
    for block in torch.split(starts.clamp(0, len(wave) - width), BLOCK):
        yield wave.unfold(0, width, 1)[block]


def _means(values: Tensor, samples: int) -> Tensor:
    """Mean of the values of each frame's 25 ms, as far as they lie in the wave."""
    middle = torch.arange(frames(samples), device=values.device) * HOP + HOP // 2
    low = (middle - WINDOW // 2).clamp(0, len(values))
    high = (middle + WINDOW // 2).clamp(0, len(values))
    total = torch.cat([values.new_zeros(1), values.cumsum(0)])
    return (total[high] - total[low]).clamp_min(0) / (high - low).clamp_min(1)


def _spectrum(wave: Tensor, bands: Tensor) -> Tensor:
    """(frames, bands): the power of 25 ms under a Hann window, summed with the weights of the bands (bins, bands)."""
    window = torch.hann_window(WINDOW, device=wave.device)
    window = window / window.square().sum().sqrt() / FFT**0.5
    blocks = (torch.fft.rfft(cut * window, n=FFT).abs().square() for cut in _cuts(wave, WINDOW))
    return torch.cat([power @ bands.float() for power in blocks]).double()


@lru_cache(maxsize=1)
def _critical_bands() -> tuple[Tensor, Tensor]:
    """(bins, bands) the curves of the critical bands, one Bark apart, and how loud each is heard (Hermansky 1990)."""
    hertz = torch.arange(FFT // 2 + 1, dtype=torch.float64) * (SAMPLE_RATE / FFT)
    bark = 6 * torch.asinh(hertz / 600)
    centres = torch.arange(1, int(bark[-1]) + 1, dtype=torch.float64)
    away = bark[:, None] - centres
    slope = torch.where(away < 0, 2.5 * (away + 0.5), -(away - 0.5)).clamp_max(0)
    curves = 10**slope * ((away >= -1.3) & (away <= 2.5))
    square = (2 * math.pi * 600 * torch.sinh(centres / 6)).square()
    equal = (square + 56.8e6) * square**2 / ((square + 6.3e6) ** 2 * (square + 0.38e9) * (square**3 / 9.58e26 + 1))
    return curves, equal / equal.max()


def _peaks(cuts: Tensor, first: int, last: int) -> tuple[Tensor, Tensor, Tensor]:
    """The highest peaks of the autocorrelation of each cut: lags in samples, heights (0 = no peak), and its greatest sample.

    Padding the spectrum with zeros draws the autocorrelation between the samples as the sinc of Boersma does.
    """
    width = cuts.shape[1]
    size = width + last // FINER + 1
    size += -size % 60
    window = torch.hann_window(width + 1, periodic=False, device=cuts.device)[:width]
    cuts = cuts - cuts.mean(1, keepdim=True)

    def correlation(x: Tensor) -> Tensor:
        power = torch.fft.rfft(x, n=size).abs().square()
        drawn: Tensor = torch.fft.irfft(power, n=FINER * size)
        return drawn[..., : last + 2]

    own, windows = correlation(cuts * window), correlation(window)
    r = own[:, first - 1 :] / own[:, :1].clamp_min(1e-20) * (windows[0] / windows[first - 1 :])
    before, here, after = r[:, :-2], r[:, 1:-1], r[:, 2:]
    lags = torch.arange(first, last + 1, device=cuts.device)
    peak = (here > before) & (here >= after) & (here > 0)
    places = (
        torch.where(peak, here - OCTAVE_COST * torch.log2(lags / first), 0.0).topk(min(CANDIDATES, len(lags)), dim=1).indices
    )
    heights = torch.where(peak, here, 0.0).gather(1, places)
    before, after = before.gather(1, places), after.gather(1, places)
    bend = (before - 2 * heights + after).clamp_max(-1e-12)
    shift = torch.where(heights > 0, 0.5 * (before - after) / bend, 0.0).clamp(-0.5, 0.5)
    top = heights - 0.25 * (before - after) * shift
    top = torch.where(heights > 0, torch.where(top > 1, 1 / top, top), 0.0)  # above 1 it is the window's doing
    return (places + first + shift) / FINER, top, cuts.abs().amax(1)


Values = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def _path(lags: Values, heights: Values, loudest: Values, longest: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The pitch in Hz along the best path, NaN where it is not voiced (Viterbi; costs of Boersma 1993)."""
    there = heights > 0
    octaves = np.log2(longest / lags)
    voiced = np.where(there, heights + OCTAVE_COST * octaves, -np.inf)
    silence = 2 - loudest / max(float(loudest.max()), 1e-5) * (1 + VOICED) / SILENT
    score = np.concatenate([(VOICED + silence.clip(0))[:, None], voiced], axis=1).astype(np.float64)
    octaves = np.where(there, octaves, 0.0).astype(np.float64)
    came = np.zeros(score.shape, np.int64)
    cost = np.full((score.shape[1],) * 2, SWITCH_COST)
    cost[0, 0] = 0.0
    best = score[0]
    for frame in range(1, len(score)):
        cost[1:, 1:] = JUMP_COST * np.abs(octaves[frame - 1][:, None] - octaves[frame])
        total = best[:, None] - cost
        came[frame] = total.argmax(0)
        best = total.max(0) + score[frame]
    chosen = np.empty(len(score), np.int64)
    chosen[-1] = best.argmax()
    for frame in range(len(score) - 1, 0, -1):
        chosen[frame - 1] = came[frame, chosen[frame]]
    hertz = np.concatenate([np.full((len(lags), 1), np.nan), SAMPLE_RATE / lags], axis=1)
    found: np.ndarray[tuple[int], np.dtype[np.float64]] = hertz[np.arange(len(score)), chosen]
    return found
