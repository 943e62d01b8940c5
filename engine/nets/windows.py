"""Clips that are longer than a model hears at once: overlapping windows, put together again."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from engine.errors import Refused
from engine.nets.clips import together
from engine.upstream import SAMPLE_RATE, Card, Hidden

Encode = Callable[[Tensor, bool], tuple[list[Tensor], list[Tensor]]]  # a window -> its states, and its maps if asked for


def windowed(
    card: Card, wavs: Iterable[Tensor], window: int, overlap: int, hop: int, encode: Encode, attention: bool
) -> Hidden:
    """Each clip by itself, stitched where it is longer than a window; attention maps are of one window."""
    clips, maps = [], []
    for wav in wavs:
        if not attention:
            clips.append(stitched(wav, window, overlap, hop, lambda part: encode(part, False)[0]))
            continue
        if wav.numel() > window:
            raise Refused(
                f"Attention maps of {card.name} are given for clips of up to {window / SAMPLE_RATE:.1f} seconds; "
                f"this one has {wav.numel() / SAMPLE_RATE:.1f}."
            )
        states, seen = encode(wav, True)
        clips.append(states)
        maps.append(seen)
    return together(clips, maps if attention else None)


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
