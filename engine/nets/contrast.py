"""Telling a true frame from others: what contrastive pretexts have in common. Pure functions of tensors.

Scores are (guesses, 1 + others), the true frame first. Which frames are compared is an index of that shape into a table.
"""

import torch
from torch import Tensor
from torch.nn import functional


def others(frames: int, count: int, generator: torch.Generator, *, first: int = 0, of: int = 0) -> Tensor:
    """For each frame the row of itself, then those of `count` other rows, each as likely: (frames, 1 + count).

    The rows are the frames themselves, or a table of so many in which they begin at the row `first`. A row may be drawn
    more than once, but none as its own rival.
    """
    own = first + torch.arange(frames)[:, None]
    rows = of or frames
    drawn = torch.randint(max(1, rows - 1), (frames, count), generator=generator)
    return torch.cat([own, (drawn + (drawn >= own)).clamp(max=rows - 1)], dim=1)


def scores(guesses: Tensor, table: Tensor, compared: Tensor) -> Tensor:
    """Inner products of guesses (n, d) with the rows of a table (m, d) that each is compared with (n, 1 + others).

    All products are taken at once and then picked, which is quicker and smaller than to gather the rows.
    """
    return (guesses @ table.T).gather(1, compared.to(table.device))


def cosines(guesses: Tensor, table: Tensor, compared: Tensor, temperature: float) -> Tensor:
    """The same with cosines over a temperature, as wav2vec 2.0 has it."""
    return scores(functional.normalize(guesses, dim=1), functional.normalize(table, dim=1), compared) / temperature


def without_twins(scored: Tensor, codes: Tensor, compared: Tensor) -> Tensor:
    """Scores in which others of the very codes (m, books) of the true row count no more."""
    rivals = codes[compared.to(codes.device)]
    twins = (rivals[:, 1:] == rivals[:, :1]).all(dim=2)
    return torch.cat([scored[:, :1], scored[:, 1:].masked_fill(twins, -torch.inf)], dim=1)


def surprise(scored: Tensor) -> Tensor:
    """How unlikely the softmax of the scores holds the true frame, (n,): InfoNCE (van den Oord et al. 2018)."""
    return scored.logsumexp(dim=1) - scored[:, 0]


def suspicion(scored: Tensor, weight: float) -> Tensor:
    """True or not, asked of each frame by itself, (n,): the loss of wav2vec (Schneider et al. 2019).

    `weight` multiplies the mean over the others: as many as there are and each counts like the true one; 1 balances them.
    """
    return functional.softplus(-scored[:, 0]) + weight * functional.softplus(scored[:, 1:]).mean(dim=1)


def told_apart(scored: Tensor) -> Tensor:
    """Share of the guesses that score the true frame above all others; a tie is not enough."""
    return (scored[:, :1] > scored[:, 1:]).all(dim=1).float().mean()
