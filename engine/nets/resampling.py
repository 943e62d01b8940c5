"""From 16 kHz to the rate at which a model works, inside it, so that a gradient reaches the sound as it was given.

The same low-pass as `engine.resample` has, hence the same numbers; sound brought up has nothing above 8 kHz.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.resample import low_pass
from engine.upstream import SAMPLE_RATE


class Resampling(nn.Module):
    """(samples,) of one clip -> (ceil(samples * rate / 16,000),). Each of `up` outputs in a row has a filter of its own."""

    def __init__(self, rate: int) -> None:
        super().__init__()
        common = math.gcd(rate, SAMPLE_RATE)
        self.up, self.down = rate // common, SAMPLE_RATE // common
        self.before = 0
        filters = torch.empty(0)
        if self.up != self.down:
            filters = self._filters()
        self.register_buffer("filters", filters, persistent=False)
        self.filters: Tensor

    def _filters(self) -> Tensor:
        """(up, 1, width): output p * up + r takes inputs from p * down - before on, with the filter of r."""
        taps, zero = low_pass(self.up, self.down)
        first = math.ceil((zero * self.down - (len(taps) - 1)) / self.up)
        last = ((self.up - 1 + zero) * self.down) // self.up
        self.before = -first
        at = (torch.arange(self.up)[:, None] + zero) * self.down - torch.arange(first, last + 1) * self.up
        inside = (at >= 0) & (at < len(taps))
        return torch.where(inside, torch.from_numpy(taps)[at.clamp(0, len(taps) - 1)], 0.0)[:, None]

    def samples(self, samples: int) -> int:
        """How many come out of so many."""
        return -(-samples * self.up // self.down)

    def forward(self, wav: Tensor) -> Tensor:
        if self.up == self.down:
            return wav
        total = self.samples(wav.numel())
        periods = -(-total // self.up)
        behind = (periods - 1) * self.down + self.filters.shape[2] - self.before - wav.numel()
        with torch.autocast(wav.device.type, enabled=False):
            padded = functional.pad(wav, (self.before, max(0, behind)))
            outputs = functional.conv1d(padded[None, None], self.filters, stride=self.down)[0, :, :periods]
        return outputs.T.flatten()[:total]
