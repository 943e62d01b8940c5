"""Sound laid over other sound, as WavLM and UniSpeech-SAT have it while they learn (Chen et al. 2021 and 2022)."""

import torch
from torch import Tensor

SILENT = 1e-10  # power below which nothing can be laid over or under at a ratio


def mix(wave: Tensor, other: Tensor, decibels: float, generator: torch.Generator) -> Tensor:
    """The wave with a stretch of another laid over it: at most half of the wave, anywhere in it, from anywhere in the other.

    The ratio is that of the powers of the two whole clips.
    """
    longest = min(len(wave) // 2, len(other))
    power, others = float(wave.square().mean()), float(other.square().mean())
    if longest < 1 or min(power, others) < SILENT:
        return wave
    length = 1 + _below(longest, generator)
    at, begin = _below(len(wave) - length + 1, generator), _below(len(other) - length + 1, generator)
    mixed = wave.clone()
    mixed[at : at + length] += other[begin : begin + length].to(wave) * (power / (10 ** (decibels / 10) * others)) ** 0.5
    return mixed


def _below(bound: int, generator: torch.Generator) -> int:
    return int(torch.randint(bound, (), generator=generator))
