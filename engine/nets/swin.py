"""Blocks of the Swin Transformer (Liu et al. 2021, arXiv:2103.14030): attention within windows of a picture, which shift.

A picture is (rows, columns, dim). Every second block moves its windows by half, so that neighbours come together; what the
move brings together from opposite edges does not attend to each other.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.nets.front import ACTIVATIONS

APART = -100.0  # added to the score of two places that should not see each other


class Block(nn.Module):
    """One block; `side` is that of the picture, which is square, and `window` that of a window."""

    def __init__(
        self,
        dim: int,
        heads: int,
        inner: int,
        side: int,
        window: int,
        shifted: bool,
        activation: str,
        epsilon: float,
        bias: bool,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"the activation '{activation}' is not known")
        if dim % heads or side % window:
            raise ValueError(f"{dim} cannot be divided among {heads} heads, or {side} patches among windows of {window}")
        self.heads, self.window, self.activation = heads, window, activation
        self.shift = window // 2 if shifted and side > window else 0
        self.attention_norm = nn.LayerNorm(dim, epsilon)
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias) for _ in range(3))
        self.out = nn.Linear(dim, dim)
        self.distances = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.feed_norm = nn.LayerNorm(dim, epsilon)
        self.up = nn.Linear(dim, inner)
        self.down = nn.Linear(inner, dim)
        with torch.device("cpu"):  # the network may lie on the meta device; what is computed from nothing does not
            self.register_buffer("places", _places(window), persistent=False)
            self.register_buffer("apart", _apart(side, window, self.shift), persistent=False)
        self.places: Tensor
        self.apart: Tensor

    def forward(self, x: Tensor) -> Tensor:
        shift = self.shift
        normed = self.attention_norm(x).roll((-shift, -shift), (0, 1))
        windows = cut(normed, self.window)
        query, key, value = (
            part(windows).unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        bias = self.distances[self.places].permute(2, 0, 1) + self.apart
        heard = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        mixed = laid(self.out(heard.transpose(1, 2).flatten(2)), x.shape[0], self.window)
        x = x + mixed.roll((shift, shift), (0, 1))
        fed: Tensor = self.down(ACTIVATIONS[self.activation](self.up(self.feed_norm(x))))
        return x + fed


class Merge(nn.Module):
    """Four neighbours become one with twice the width: (rows, columns, dim) -> (rows / 2, columns / 2, 2 * dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        corners = torch.cat([x[row::2, column::2] for column in range(2) for row in range(2)], dim=2)
        merged: Tensor = self.reduction(self.norm(corners)).float()
        return merged


def cut(x: Tensor, window: int) -> Tensor:
    """A picture as its windows, row by row: (windows, window * window, dim)."""
    rows, columns, dim = x.shape
    grid = x.view(rows // window, window, columns // window, window, dim).transpose(1, 2)
    return grid.reshape(-1, window * window, dim)


def laid(windows: Tensor, rows: int, window: int) -> Tensor:
    """Windows laid side by side again: the reverse of `cut`."""
    dim = windows.shape[2]
    grid = windows.view(rows // window, -1, window, window, dim).transpose(1, 2)
    return grid.reshape(rows, -1, dim)


def _places(window: int) -> Tensor:
    """Which row of the table of distances stands for two places of a window: (places, places)."""
    row, column = (torch.arange(window).repeat_interleave(window), torch.arange(window).repeat(window))
    down, right = row[:, None] - row + window - 1, column[:, None] - column + window - 1
    return down * (2 * window - 1) + right


def _apart(side: int, window: int, shift: int) -> Tensor:
    """What is added to scores in a shifted picture: (windows, 1, places, places); zero where nothing is shifted."""
    if not shift:
        return torch.zeros(1, 1, 1, 1)
    at = torch.arange(side)
    region = (at >= side - window).long() + (at >= side - shift).long()
    regions = cut((3 * region[:, None] + region)[..., None], window)[..., 0]
    return torch.where(regions[:, None] == regions[:, :, None], 0.0, APART)[:, None]
