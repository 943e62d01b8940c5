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


def alter(x: Tensor, hidden: Tensor, generator: torch.Generator, *, in_a_row: bool = False) -> Tensor:
    """What the network gets to see of a clip (Liu et al. 2020, after BERT): one die decides about its hidden frames.

    Eight times in ten they are zero, once in ten other frames of the clip, once in ten left as they are. The other frames
    are drawn one by one, or come `in_a_row` from another place, so that those of a run follow one another.
    """
    x, hidden = x.clone(), hidden.to(x.device)
    die = float(torch.rand((), generator=generator))
    if die < 0.8:
        x[hidden] = 0
    elif die < 0.9 and in_a_row:
        x[hidden] = x.roll(int(torch.randint(1, max(2, len(x)), (), generator=generator)), dims=0)[hidden]
    elif die < 0.9:
        x[hidden] = x[torch.randint(len(x), (int(hidden.sum()),), generator=generator).to(x.device)]
    return x


def alter_each(x: Tensor, hidden: Tensor, generator: torch.Generator) -> Tensor:
    """The same with a die for each hidden frame."""
    at = hidden.cpu().nonzero()[:, 0]
    die = torch.rand(len(at), generator=generator)
    source = torch.arange(len(x))
    source[at] = torch.where(die < 0.9, torch.randint(len(x), (len(at),), generator=generator), at)
    x = x[source.to(x.device)]
    x[at[die < 0.8].to(x.device)] = 0
    return x


def stretch(length: int, widest: int, generator: torch.Generator) -> slice:
    """A stretch anywhere in `length` frames or channels, of any width from nothing to `widest`."""
    width = int(torch.randint(min(widest, length) + 1, (), generator=generator))
    start = int(torch.randint(length - width + 1, (), generator=generator))
    return slice(start, start + width)
