"""Residual vector quantization: each codebook says what the ones before it have left over."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class ResidualCodes(nn.Module):
    """Codebooks one after another, each choosing its entry nearest to what is left: (frames, dim) -> (frames, codebooks)."""

    def __init__(self, codebooks: int, entries: int, dim: int) -> None:
        super().__init__()
        self.books = nn.ParameterList(nn.Parameter(torch.randn(entries, dim)) for _ in range(codebooks))

    def forward(self, x: Tensor) -> Tensor:
        codes = []
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            for book in self.books:
                nearest = (2 * x @ book.T - book.square().sum(dim=1)).argmax(dim=1)  # |x| is the same for every entry
                codes.append(nearest)
                x = x - functional.embedding(nearest, book)
        return torch.stack(codes, dim=1)
