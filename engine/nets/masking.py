"""Hiding frames from a network that has to guess them. Each clip has a generator of its own."""

import torch
from torch import Tensor


def spans(frames: int, share: float, span: int, generator: torch.Generator) -> Tensor:
    """(frames,) true where a frame is hidden: runs of `span` frames that may overlap, about `share` of the clip."""
    hidden = torch.zeros(frames, dtype=torch.bool)
    starts = torch.randperm(max(frames - span, 0) + 1, generator=generator)[: max(1, round(frames * share / span))]
    hidden[(starts[:, None] + torch.arange(span)).clamp(max=frames - 1)] = True
    return hidden


def runs(frames: int, chance: float, span: int, generator: torch.Generator, least: int = 2) -> Tensor:
    """(frames,) true where a frame is hidden: a run of `span` frames begins at each frame with this chance.

    As wav2vec 2.0 does it (Baevski et al. 2020): the beginnings are drawn without repetition, at least `least` of them, and
    runs may overlap. Of a clip that is too short for two runs and a frame between, the runs are shorter.
    """
    span = max(1, min(span, (frames - 1) // 2))
    count = max(least, int(frames * chance + float(torch.rand((), generator=generator))))
    hidden = torch.zeros(frames, dtype=torch.bool)
    starts = torch.randperm(frames - span + 1, generator=generator)[:count]
    hidden[starts[:, None] + torch.arange(span)] = True
    return hidden


def alter(x: Tensor, hidden: Tensor, generator: torch.Generator) -> Tensor:
    """What the network gets to see of a clip (Liu et al. 2020, after BERT): one die decides about its hidden frames.

    Eight times in ten they are zero, once in ten other frames of the clip, once in ten left as they are.
    """
    x, hidden = x.clone(), hidden.to(x.device)
    die = float(torch.rand((), generator=generator))
    if die < 0.8:
        x[hidden] = 0
    elif die < 0.9:
        x[hidden] = x[torch.randint(len(x), (int(hidden.sum()),), generator=generator).to(x.device)]
    return x
