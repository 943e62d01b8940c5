"""A Transformer encoder with named parts, whose every layer can be looked at (Vaswani et al. 2017; post-norm as in BERT)."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.nets.dropout import Dropout, attended
from engine.nets.front import ACTIVATIONS
from engine.nets.recomputing import through


def positions(frames: int, width: int, device: torch.device, angles: torch.dtype = torch.float32) -> Tensor:
    """(frames, width) sinusoids: no table, so no longest clip. `angles` is the precision of their arguments."""
    place = torch.arange(frames, device=device, dtype=angles)[:, None]
    rate = 10_000 ** (-torch.arange(0, width, 2, device=device, dtype=angles) / width)
    return torch.stack([(place * rate).sin(), (place * rate).cos()], -1).flatten(1)[:, :width].float()


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

    def of_clips(self, x: Tensor, lengths: list[int], wanted: Tensor | None) -> Tensor:
        """The same for frames of several clips, one after another; of the wanted frames alone if not of all."""
        q, k, v = self.query(x if wanted is None else x[wanted]), self.key(x), self.value(x)
        if wanted is None and len(set(lengths)) == 1:  # at once, which counts where clips are many and short
            mixed = self._mixed(*(part.view(len(lengths), lengths[0], -1) for part in (q, k, v))).flatten(0, 1)
        else:
            counts = lengths if wanted is None else [int(part.sum()) for part in torch.split(wanted, lengths)]
            clips = zip(torch.split(q, counts), torch.split(k, lengths), torch.split(v, lengths), strict=True)
            mixed = torch.cat([self._mixed(*(part[None] for part in clip))[0] for clip in clips])
        out: Tensor = self.out(mixed)
        return out

    def _mixed(self, *qkv: Tensor) -> Tensor:
        """(clips, frames, width) each -> the same."""
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in qkv)  # type: ignore[no-untyped-call]
        return attended(q, k, v, self.dropout if self.training else 0.0).transpose(1, 2).flatten(2)


class Block(nn.Module):
    """Self-attention and a feed-forward net, each added to its input; a norm follows each, or goes before it."""

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int,
        dropout: float,
        *,
        norm_first: bool = False,
        activation: str = "gelu",
        epsilon: float = 1e-12,
    ) -> None:
        super().__init__()
        self.norm_first, self.activate = norm_first, ACTIVATIONS[activation]
        self.attention = Attention(width, heads, dropout)
        self.attention_norm = nn.LayerNorm(width, eps=epsilon)
        self.widen, self.narrow = nn.Linear(width, inner), nn.Linear(inner, width)
        self.feed_norm = nn.LayerNorm(width, eps=epsilon)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor | None, maps: bool) -> tuple[Tensor, Tensor | None]:
        mixed, weights = self.attention(self.attention_norm(x) if self.norm_first else x, valid, maps)
        return self._added(x, mixed), weights

    def of_clips(self, x: Tensor, lengths: list[int], wanted: Tensor | None = None) -> Tensor:
        """The same for frames of several clips, one after another; of the wanted frames alone if not of all."""
        mixed = self.attention.of_clips(self.attention_norm(x) if self.norm_first else x, lengths, wanted)
        return self._added(x if wanted is None else x[wanted], mixed)

    def _added(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + self.dropout(mixed)
        if not self.norm_first:
            x = self.attention_norm(x)
        added: Tensor = x + self.dropout(self._feed(self.feed_norm(x) if self.norm_first else x))
        return added if self.norm_first else self.feed_norm(added)

    def _feed(self, x: Tensor) -> Tensor:
        fed: Tensor = self.narrow(self.activate(self.widen(x)))
        return fed


class Transformer(nn.Module):
    """Projects frames, adds positions and runs the blocks; gives the input of the first block and the output of each."""

    recompute = False  # what blocks gave is computed again on the way back

    def __init__(
        self,
        inputs: int,
        *,
        width: int,
        blocks: int,
        heads: int,
        inner: int,
        dropout: float,
        shared: bool = False,  # one block is run again and again
        norm_first: bool = False,
        activation: str = "gelu",
        epsilon: float = 1e-12,
        angles: torch.dtype = torch.float32,
        sinusoids: bool = True,  # tell positions; else what is given knows of them
    ) -> None:
        super().__init__()
        self.depth, self.angles = blocks, angles
        self.sinusoids = sinusoids
        self.project = nn.Linear(inputs, width)
        self.norm = nn.LayerNorm(width, eps=epsilon)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(width, heads, inner, dropout, norm_first=norm_first, activation=activation, epsilon=epsilon)
            for _ in range(1 if shared else blocks)
        )
        self.apply(_start)

    def forward(self, x: Tensor, lengths: Tensor, maps: bool = False) -> tuple[list[Tensor], list[Tensor] | None]:
        """x (batch, frames, inputs) and the valid frames of each: states, and attention maps where asked for."""
        return self.encode(self.project(x), lengths, maps)

    def encode(self, x: Tensor, lengths: Tensor, maps: bool = False) -> tuple[list[Tensor], list[Tensor] | None]:
        """The same of frames that are projected already."""
        frames = x.shape[1]
        valid = None
        if bool((lengths < frames).any()):
            valid = torch.arange(frames, device=x.device) < lengths.to(x.device)[:, None]
        if self.sinusoids:
            x = x + positions(frames, x.shape[2], x.device, self.angles)
        x = self.dropout(self.norm(x.float()))  # states are exact also where no positions make them so
        states, weights = [x], []
        for number in range(self.depth):
            x, seen = through(self.blocks[number % len(self.blocks)], x, valid, maps, recompute=self.recompute)
            states.append(x)
            if seen is not None:
                weights.append(seen)
        return states, weights if maps else None

    def encode_clips(self, x: Tensor, lengths: list[int], wanted: Tensor | None = None) -> list[Tensor]:
        """States of projected frames of several clips, one after another; the last of the wanted frames alone if not of all.

        A frame that is not wanted spares the last block all but its key and value.
        """
        if self.sinusoids:
            places = positions(max(lengths), x.shape[1], x.device, self.angles)
            x = x + torch.cat([places[:length] for length in lengths])
        x = self.dropout(self.norm(x.float()))  # states are exact also where no positions make them so
        states = [x]
        for number in range(self.depth):
            block = cast(Block, self.blocks[number % len(self.blocks)])
            last = wanted if number + 1 == self.depth else None
            x = through(block.of_clips, x, lengths, last, recompute=self.recompute)
            states.append(x)
        return states

    @property
    def feeds(self) -> list[nn.Module]:
        """The last layer of each block's feed-forward net."""
        return [cast(Block, block).narrow for block in self.blocks]


def _start(module: nn.Module) -> None:
    """BERT's beginning: small normal weights, no biases."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
