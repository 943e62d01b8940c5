"""A Transformer block that normalises before it attends and before it feeds forward, as Whisper's and AST's do."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.errors import Refused
from engine.nets.front import ACTIVATIONS


class Block(nn.Module):
    """One clip at a time: (tokens, dim) -> the same, and every head's scores before the softmax where they are asked for."""

    def __init__(
        self, dim: int, heads: int, inner: int, activation: str, epsilon: float, bias: bool = True, key_bias: bool = True
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise Refused(f"The activation '{activation}' is not known. There is: {', '.join(ACTIVATIONS)}.")
        if dim % heads:
            raise Refused(f"A width of {dim} cannot be divided among {heads} attention heads.")
        self.heads = heads
        self.activation = activation
        self.attention_norm = nn.LayerNorm(dim, epsilon)
        self.query = nn.Linear(dim, dim, bias)
        self.key = nn.Linear(dim, dim, bias and key_bias)
        self.value = nn.Linear(dim, dim, bias)
        self.out = nn.Linear(dim, dim)
        self.feed_norm = nn.LayerNorm(dim, epsilon)
        self.up = nn.Linear(dim, inner)
        self.down = nn.Linear(inner, dim)

    def forward(self, x: Tensor, scores: bool) -> tuple[Tensor, Tensor | None]:
        normed = self.attention_norm(x)
        query, key, value = (
            part(normed).unflatten(1, (self.heads, -1)).transpose(0, 1)[None] for part in (self.query, self.key, self.value)
        )
        heard = functional.scaled_dot_product_attention(query, key, value)[0].transpose(0, 1).flatten(1)
        x = x + self.out(heard)
        x = x + self.down(ACTIVATIONS[self.activation](self.up(self.feed_norm(x))))
        if not scores:
            return x, None
        with torch.autocast(x.device.type, enabled=False):
            return x, query[0].float() @ key[0].float().mT / math.sqrt(query.shape[-1])
