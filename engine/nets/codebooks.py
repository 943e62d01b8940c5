"""The quantizers of vq-wav2vec (Baevski et al. 2019, arXiv:1910.05453).

Called, they choose as they do when nothing is learnt any more; `learn` is how they choose while they learn.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.nets.front import ACTIVATIONS
from engine.nets.learnt_codes import Quantized, choose, shares

PIECE = 4096  # frames whose distances to all entries are held at once


class Codebooks(nn.Module, ABC):
    """For every frame, one entry of each codebook."""

    @abstractmethod
    def codes(self, x: Tensor) -> Tensor:
        """(frames, channels) of one clip -> (frames, codebooks), whole numbers."""

    @abstractmethod
    def table(self) -> Tensor:
        """(codebooks, entries, width)."""

    def chosen(self, codes: Tensor) -> Tensor:
        """The entries of these codes, side by side: (frames, codebooks * width)."""
        table = self.table()
        return torch.cat([table[book, codes[:, book]] for book in range(codes.shape[1])], dim=1)


class Gumbel(Codebooks):
    """Takes the entries that score highest. No gradient passes."""

    def __init__(self, width: int, codebooks: int, entries: int, shared: bool, *, depth: int, activation: str) -> None:
        super().__init__()
        self.codebooks, self.entries, self.activate = codebooks, entries, ACTIVATIONS[activation]
        widths = [width, *(2 * width for _ in range(depth - 1)), codebooks * entries]
        self.scores = nn.ModuleList(nn.Linear(before, after) for before, after in zip(widths[:-1], widths[1:], strict=True))
        self.vectors = nn.Parameter(torch.rand(1, (1 if shared else codebooks) * entries, width // codebooks))

    def table(self) -> Tensor:
        return self.vectors.view(-1, self.entries, self.vectors.shape[2]).expand(self.codebooks, -1, -1)

    def codes(self, x: Tensor) -> Tensor:
        return self._scored(x).argmax(dim=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.chosen(self.codes(x))

    def learn(self, x: Tensor, temperature: float) -> Quantized:
        """Entries that are drawn by their scores; the gradient is that of a softmax at this temperature."""
        choice = choose(self._scored(x), temperature, draw=self.training)
        with torch.autocast(x.device.type, enabled=False):
            vectors = torch.einsum("nbe,bew->nbw", choice.weights, self.table()).flatten(1)
        return Quantized(vectors, choice.codes, shares(choice.codes, self.entries), choice.likely)

    def _scored(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            for number, score in enumerate(self.scores):
                x = score(self.activate(x) if number else x)
        return x.view(len(x), self.codebooks, -1)


class KMeans(Codebooks):
    """Takes the nearest entries. A gradient passes as if nothing had been replaced (straight through)."""

    def __init__(self, width: int, codebooks: int, entries: int, shared: bool) -> None:
        super().__init__()
        self.codebooks, self.entries = codebooks, entries
        self.project = nn.Conv1d(width, width, 1, groups=codebooks, bias=False)
        self.norm = nn.GroupNorm(codebooks, width)
        self.vectors = nn.Parameter(0.01 * torch.randn(entries, 1 if shared else codebooks, width // codebooks))

    def table(self) -> Tensor:
        return self.vectors.transpose(0, 1).expand(self.codebooks, -1, -1)

    def codes(self, x: Tensor) -> Tensor:
        return self._nearest(self.near(x))

    def forward(self, x: Tensor) -> Tensor:
        near = self.near(x)
        return self.chosen(self._nearest(near)).detach() + (near - near.detach())

    def learn(self, x: Tensor, commitment: float) -> tuple[Quantized, Tensor]:
        """The nearest entries, and a loss that draws entries to frames and, by `commitment` as much, frames to entries."""
        near = self.near(x)
        codes = self._nearest(near)
        taken = self.chosen(codes)
        apart = functional.mse_loss(taken, near.detach()) + commitment * functional.mse_loss(near, taken.detach())
        share = shares(codes, len(self.vectors))
        return Quantized(taken.detach() + (near - near.detach()), codes, share, share), apart

    def near(self, x: Tensor) -> Tensor:
        """What is compared with the entries, all codebooks side by side."""
        with torch.autocast(x.device.type, enabled=False):
            projected: Tensor = self.norm(self.project(x.T[None]))
            return projected[0].T

    def _nearest(self, projected: Tensor) -> Tensor:
        return torch.cat([self._nearest_of(piece) for piece in torch.split(projected.detach(), PIECE)])

    def _nearest_of(self, piece: Tensor) -> Tensor:
        parts = piece.reshape(len(piece), self.codebooks, -1).transpose(0, 1).contiguous()
        # The short way through a matrix product rounds near ties away.
        distances = torch.cdist(parts, self.table().contiguous(), compute_mode="donot_use_mm_for_euclid_dist")
        return distances.argmin(dim=2).T
