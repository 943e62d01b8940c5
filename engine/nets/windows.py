"""Clips that are longer than a model hears at once: overlapping windows, put together again."""

from collections.abc import Callable

import torch
from torch import Tensor


def stitched(wav: Tensor, window: int, overlap: int, hop: int, encode: Callable[[Tensor], list[Tensor]]) -> list[Tensor]:
    """The states of a sound of any length, each (frames, dim), from windows of at most `window` samples.

    Every frame comes from the window in whose inside it lies deeper: two windows that share `overlap` samples change over
    in the middle of it. All three numbers are samples, window and overlap multiples of the hop. A sound that fits into
    one window goes through whole.
    """
    if wav.numel() <= window:
        return encode(wav)
    assert overlap < window and window % hop == 0 and overlap % (2 * hop) == 0
    pieces: list[list[Tensor]] = []
    begin = 0
    while True:
        last = begin + window >= wav.numel()
        states = encode(wav[begin : begin + window])
        first = overlap // 2 // hop if begin else 0
        end = len(states[0]) if last else (window - overlap // 2) // hop
        pieces.append([state[first:end] for state in states])
        if last:
            # Each layer is let go as soon as it is whole: a long sound is not held twice.
            return [torch.cat([states.pop(0) for states in pieces]) for _ in range(len(pieces[0]))]
        begin += window - overlap
