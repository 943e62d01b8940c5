"""From any sample rate to another, block by block, with the same bits as in one piece.

A Kaiser-windowed sinc low-pass in polyphase form (J. O. Smith, "Digital Audio Resampling"; Oppenheim & Schafer,
"Discrete-Time Signal Processing", 7.6). Stop band about 86 dB down; the pass band reaches 86 % of the lower Nyquist rate.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

_CROSSINGS = 32  # zero crossings of the sinc on either side
_CUTOFF = 0.945  # -6 dB point as a share of the lower Nyquist rate
_BETA = 8.6  # Kaiser window


@lru_cache(maxsize=8)
def low_pass(up: int, down: int) -> tuple[Samples, int]:
    """The low-pass at `up` times the input rate, padded so that output 0 lies over input 0; and where output 0 is."""
    longest = max(up, down)
    crossings = max(8, min(_CROSSINGS, 4_000_000 // longest))  # rates without a common divisor get a shorter filter
    half = crossings * longest
    time = np.arange(half + 1) / longest
    side = np.sinc(_CUTOFF * time) * np.i0(_BETA * np.sqrt(1 - (time / crossings) ** 2))
    side *= up / (side[0] + 2 * side[1:].sum())
    lead = -half % down
    return np.concatenate([np.zeros(lead), side[:0:-1], side]).astype(np.float32), (half + lead) // down


class Resampler:
    """Takes blocks of one signal with `push`, ends it with `finish`; what both give is the resampled signal.

    `first` is the output sample to begin with: blocks must then begin at input sample `needs`.
    """

    def __init__(self, rate: int, to: int, first: int = 0) -> None:
        common = math.gcd(rate, to)
        self.up, self.down = to // common, rate // common
        self._taps, self._zero = low_pass(self.up, self.down)
        reach = math.ceil(len(self._taps) / 2 / self.up) + 1  # input samples that an output looks at, to either side
        self._margin = math.ceil(reach / self.down)  # the same in periods of `down` inputs, `up` outputs
        self.reach = self._margin * self.down
        period = max(0, first // self.up - self._margin)
        self.needs = period * self.down
        self._drop = first - period * self.up
        self._taken = 0
        self._given = 0
        self._held = np.zeros(self.reach, np.float32)

    def push(self, block: Samples) -> Samples:
        """Outputs that are settled once this block is known."""
        self._taken += len(block)
        self._held = np.concatenate([self._held, block])
        periods = (len(self._held) - 2 * self.reach) // self.down
        return self._step(periods) if periods > 0 else np.zeros(0, np.float32)

    def finish(self) -> Samples:
        """The outputs that remain; together ceil(inputs * to / rate), as silence follows the last input."""
        total = -(-self._taken * self.up // self.down)
        periods = math.ceil((total - self._given) / self.up)
        if periods <= 0:
            return np.zeros(0, np.float32)
        missing = (periods + 2 * self._margin) * self.down - len(self._held)
        self._held = np.concatenate([self._held, np.zeros(max(0, missing), np.float32)])
        return self._step(periods, total - self._given)

    def _step(self, periods: int, count: int | None = None) -> Samples:
        from scipy.signal import upfirdn  # lazily: it takes most of a second to import

        whole = upfirdn(self._taps, self._held[: (periods + 2 * self._margin) * self.down], self.up, self.down)
        begin = self._zero + self._margin * self.up
        made = whole[begin : begin + periods * self.up][:count]
        self._held = self._held[periods * self.down :]
        self._given += len(made)
        drop = min(self._drop, len(made))
        self._drop -= drop
        return np.ascontiguousarray(made[drop:], dtype=np.float32)


def resample(wave: Samples, rate: int, to: int) -> Samples:
    """A whole signal at another rate; memory beyond input and output stays small."""
    if rate == to:
        return wave
    stream = Resampler(rate, to)
    blocks = [stream.push(wave[begin : begin + 2**20]) for begin in range(0, len(wave), 2**20)]
    return np.concatenate([*blocks, stream.finish()])
