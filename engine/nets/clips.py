"""Clips of several lengths: put together as a batch, and worked on side by side without one seeing another."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from engine.upstream import Hidden


def together(clips: Sequence[Sequence[Tensor]], maps: Sequence[Sequence[Tensor]] | None = None) -> Hidden:
    """The states of each clip, (frames, dim), and its attention maps, (heads, frames, frames), as float32 with padding."""
    lengths = torch.tensor([len(states[0]) for states in clips], device=clips[0][0].device)
    states = [pad_sequence(list(layer), batch_first=True).float() for layer in zip(*clips, strict=True)]
    if maps is None:
        return Hidden(states, lengths)
    return Hidden(states, lengths, [_padded(block) for block in zip(*maps, strict=True)])


def convolved(convolve: Callable[[Tensor], Tensor], x: Tensor, lengths: Sequence[int]) -> Tensor:
    """A convolution, (clips, channels, frames) to as many frames, over clips that stand one after another: (frames, dim).

    It sees zeros beyond the ends of each clip, as if the clip were alone.
    """
    if len(lengths) == 1:
        return convolve(x.T[None])[0].T
    padded = pad_sequence(list(torch.split(x, list(lengths))), batch_first=True)
    y = convolve(padded.transpose(1, 2)).transpose(1, 2)
    return torch.cat([clip[:length] for clip, length in zip(y, lengths, strict=True)])


def _padded(maps: Sequence[Tensor]) -> Tensor:
    """Maps of one block, zero where a clip has no frame."""
    longest = max(each.shape[1] for each in maps)
    return torch.stack([functional.pad(each, (0, longest - each.shape[2], 0, longest - each.shape[1])) for each in maps])
