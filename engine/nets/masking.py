"""Hiding frames from a network that has to guess them."""

import torch
from torch import Tensor


def spans(lengths: Tensor, share: float, span: int) -> Tensor:
    """(batch, longest) true where a frame is hidden: runs of `span` frames that may overlap, about `share` of each clip."""
    hidden = torch.zeros(len(lengths), int(lengths.max()), dtype=torch.bool)
    for clip, length in enumerate(lengths.tolist()):
        starts = torch.randperm(max(length - span, 0) + 1)[: max(1, round(length * share / span))]
        for start in starts.tolist():
            hidden[clip, start : min(start + span, length)] = True
    return hidden


def alter(x: Tensor, hidden: Tensor, lengths: Tensor) -> Tensor:
    """What the network gets to see (Liu et al. 2020, after BERT): one die for each clip decides about its hidden frames.

    Eight times in ten they are zero, once in ten other frames of the clip, once in ten left as they are.
    """
    x = x.clone()
    for clip, length in enumerate(lengths.tolist()):
        die = float(torch.rand(()))
        places = hidden[clip].nonzero()[:, 0]
        if die < 0.8:
            x[clip, places] = 0
        elif die < 0.9:
            x[clip, places] = x[clip, torch.randint(length, (len(places),))]
    return x
