"""A Transformer encoder with named parts, whose every layer can be looked at (Vaswani et al. 2017; post-norm as in BERT)."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def positions(frames: int, width: int, device: torch.device) -> Tensor:
    """(frames, width) sinusoids: no table, so no longest clip."""
    place = torch.arange(frames, device=device, dtype=torch.float32)[:, None]
    rate = 10_000 ** (-torch.arange(0, width, 2, device=device, dtype=torch.float32) / width)
    return torch.stack([(place * rate).sin(), (place * rate).cos()], -1).flatten(1)[:, :width]


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, valid: Tensor | None, maps: bool) -> tuple[Tensor, Tensor | None]:
        batch, frames, width = x.shape
        q, k, v = (
            part(x).view(batch, frames, self.heads, -1).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        seen = None if valid is None else valid[:, None, None]
        dropout = self.dropout if self.training else 0.0
        weights = None
        if maps:
            scores = q @ k.mT / (width // self.heads) ** 0.5
            if seen is not None:
                scores = scores.masked_fill(~seen, float("-inf"))
            weights = scores.softmax(-1)
            mixed = functional.dropout(weights, dropout) @ v
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=dropout)
        return self.out(mixed.transpose(1, 2).reshape(batch, frames, width)), weights


class Block(nn.Module):
    """Self-attention and a feed-forward net, each followed by a norm."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.attention_norm = nn.LayerNorm(width, eps=1e-12)
        self.widen, self.narrow = nn.Linear(width, inner), nn.Linear(inner, width)
        self.feed_norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor | None, maps: bool) -> tuple[Tensor, Tensor | None]:
        mixed, weights = self.attention(x, valid, maps)
        x = self.attention_norm(x + self.dropout(mixed))
        fed = self.narrow(functional.gelu(self.widen(x)))
        return self.feed_norm(x + self.dropout(fed)), weights


class Transformer(nn.Module):
    """Projects frames, adds positions and runs the blocks; gives the input of the first block and the output of each."""

    def __init__(self, inputs: int, *, width: int, blocks: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(inputs, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, inner, dropout) for _ in range(blocks))
        self.apply(_start)

    def forward(self, x: Tensor, lengths: Tensor, maps: bool = False) -> tuple[list[Tensor], list[Tensor] | None]:
        """x (batch, frames, inputs) and the valid frames of each: states, and attention maps where asked for."""
        frames = x.shape[1]
        valid = None
        if bool((lengths < frames).any()):
            valid = torch.arange(frames, device=x.device) < lengths.to(x.device)[:, None]
        x = self.project(x)
        x = self.dropout(self.norm(x + positions(frames, x.shape[2], x.device)))
        states, weights = [x], []
        for block in self.blocks:
            x, seen = block(x, valid, maps)
            states.append(x)
            if seen is not None:
                weights.append(seen)
        return states, weights if maps else None


def _start(module: nn.Module) -> None:
    """BERT's beginning: small normal weights, no biases."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
