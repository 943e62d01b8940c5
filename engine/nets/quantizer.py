"""Quantizers that choose by a linear layer, as VQ-APC (Chung, Tang, Glass 2020) and NPC (Liu, Chung, Glass 2020) do."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engine.nets.learnt_codes import Quantized, choose, shares
from engine.upstream import Tap


class LinearQuantizer(nn.Module):
    """Cuts frames into groups and gives for each the entry of its codebook that a linear layer scores highest."""

    def __init__(self, widths: Sequence[int], entries: Sequence[int]) -> None:
        super().__init__()
        self.widths, self.entries = list(widths), list(entries)
        self.scores = nn.ModuleList(nn.Linear(width, count) for width, count in zip(widths, entries, strict=True))

    def forward(self, frames: Tensor) -> Tensor:
        """(frames, sum of widths) -> (frames, groups) whole numbers."""
        return torch.stack([scores.argmax(dim=1) for scores in self.scored(frames)], dim=1)

    def scored(self, frames: Tensor) -> list[Tensor]:
        """How well each entry fits each frame: (frames, entries) for each group."""
        parts = torch.split(frames, self.widths, dim=1)
        return [score(part) for score, part in zip(self.scores, parts, strict=True)]


class Entries(nn.Module):
    """What the codes of a quantizer stand for, learnt along with it and of no use after: the states come before it."""

    def __init__(self, quantizer: LinearQuantizer) -> None:
        super().__init__()
        sizes = zip(quantizer.entries, quantizer.widths, strict=True)
        self.books = nn.ModuleList(nn.Linear(entries, width, bias=False) for entries, width in sizes)

    def forward(self, quantizer: LinearQuantizer, frames: Tensor, temperature: float) -> Quantized:
        """Frames in the words of the codebooks, all of which have as many entries; drawn while learning."""
        with torch.autocast(frames.device.type, enabled=False):
            scores = torch.stack(quantizer.scored(frames.float()), dim=1)
            choice = choose(scores, temperature, draw=self.training)
            vectors = torch.cat(
                [book(weights) for book, weights in zip(self.books, choice.weights.unbind(1), strict=True)], 1
            )
        return Quantized(vectors, choice.codes, shares(choice.codes, scores.shape[2]), choice.likely)


def taps(entries: Sequence[int], hop: int) -> tuple[Tap, ...]:
    """The codes, where there is a codebook."""
    return (Tap("codes", len(entries), hop, codes=True, entries=max(entries)),) if entries else ()
