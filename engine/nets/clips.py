"""Clips that went through a network one by one, put together as a batch."""

from collections.abc import Sequence

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


def _padded(maps: Sequence[Tensor]) -> Tensor:
    """Maps of one block, zero where a clip has no frame."""
    longest = max(each.shape[1] for each in maps)
    return torch.stack([functional.pad(each, (0, longest - each.shape[2], 0, longest - each.shape[1])) for each in maps])
