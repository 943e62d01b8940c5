"""Quantizers that choose by a linear layer, as VQ-APC (Chung, Tang, Glass 2020) and NPC (Liu, Chung, Glass 2020) do."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engine.upstream import Tap


class LinearQuantizer(nn.Module):
    """Cuts frames into groups and gives for each the entry of its codebook that a linear layer scores highest."""

    def __init__(self, widths: Sequence[int], entries: Sequence[int]) -> None:
        super().__init__()
        self.widths = list(widths)
        self.scores = nn.ModuleList(nn.Linear(width, count) for width, count in zip(widths, entries, strict=True))

    def forward(self, frames: Tensor) -> Tensor:
        """(frames, sum of widths) -> (frames, groups) whole numbers."""
        parts = torch.split(frames, self.widths, dim=1)
        return torch.stack([score(part).argmax(dim=1) for score, part in zip(self.scores, parts, strict=True)], dim=1)


def taps(entries: Sequence[int], hop: int) -> tuple[Tap, ...]:
    """The codes, where there is a codebook."""
    return (Tap("codes", len(entries), hop, codes=True, entries=max(entries)),) if entries else ()
