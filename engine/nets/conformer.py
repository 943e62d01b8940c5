"""Conformer blocks (Gulati et al. 2020) as wav2vec2-Conformer and w2v-BERT 2.0 use them.

A half-step feed-forward part, attention, a convolution over the frames, another half-step, a norm. What differs is in
`Shape`: how attention knows positions, and whether the convolution looks ahead. Attention and convolution work clip by
clip, everything else on the frames of all clips put one after another; so no clip ever sees padding. The biases of
relative positions are made for a few queries at a time, which bounds the memory that a long clip needs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.errors import Refused
from engine.nets.clips import together
from engine.nets.front import ACTIVATIONS
from engine.upstream import Hidden

BIAS_NUMBERS = 2**24  # most numbers of relative position bias held at once

# relative: sinusoids of the distance (Dai et al. 2019); rotary: turned queries and keys (Su et al. 2021); key: a learnt
# vector for each distance up to a furthest one (Shaw et al. 2018); "": none.
Positions = Literal["relative", "rotary", "key", ""]


@dataclass(frozen=True)
class Shape:
    """Everything that tells one stack of blocks from another."""

    dim: int
    layers: int
    heads: int
    inner: int  # width between the two layers of a feed-forward part
    kernel: int = 31  # frames that the convolution sees
    causal: bool = False  # the convolution looks back only, and a norm over channels follows it; else a batch norm
    positions: Positions = "relative"
    furthest: tuple[int, int] = (64, 8)  # distances told apart to the left and to the right
    rotary_base: float = 10_000.0
    activation: str = "swish"
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise Refused(f"The activation '{self.activation}' is not known. There is: {', '.join(ACTIVATIONS)}.")
        if min(self.dim, self.layers, self.heads, self.inner, self.kernel) < 1 or min(self.furthest) < 0:
            raise Refused("Every size of a network is at least 1.")
        if self.dim % self.heads or self.positions == "rotary" and self.dim // self.heads % 2:
            raise Refused(f"A width of {self.dim} cannot be divided among {self.heads} attention heads.")
        if self.kernel % 2 == 0:
            raise Refused(f"The convolution of a Conformer block sees an odd number of frames, not {self.kernel}.")


class Conformer(nn.Module):
    """The stack. State 0 goes into the first block, state i comes out of block i."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.blocks = nn.ModuleList(_Block(shape) for _ in range(shape.layers))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, lengths: list[int], attention: bool) -> Hidden:
        """All states of the frames of all clips, put one after another: (frames, dim)."""
        x = x.float()  # sums stay in float32 also where products do not
        table = self._table(max(lengths), x.device)
        states, maps = [x], []
        for block in self.blocks:
            x, weights = block(x, lengths, table, attention)
            states.append(x)
            maps.append(weights)
        clips = list(zip(*(torch.split(state, lengths) for state in states), strict=True))
        return together(clips, list(zip(*maps, strict=True)) if attention else None)

    def _table(self, frames: int, device: torch.device) -> Tensor | None:
        """What positions look like before any weight: of distances frames - 1 ... 1 - frames, or angles of each frame."""
        if self.shape.positions == "relative":
            steps = torch.arange(0, self.shape.dim, 2, device=device).float()
            distance = torch.arange(frames - 1, -frames, -1, device=device).float()
            angles = distance[:, None] * torch.exp(steps * -(math.log(10_000.0) / self.shape.dim))
            return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
        if self.shape.positions == "rotary":
            width = self.shape.dim // self.shape.heads
            speed = 1.0 / self.shape.rotary_base ** (torch.arange(0, width, 2, device=device).float() / width)
            return torch.arange(frames, device=device).float()[:, None] * speed
        return None


class _Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.feed1_norm = nn.LayerNorm(shape.dim, shape.epsilon)
        self.feed1 = _Feed(shape)
        self.attention_norm = nn.LayerNorm(shape.dim, shape.epsilon)
        self.attention = _Attention(shape)
        self.convolution_norm = nn.LayerNorm(shape.dim, shape.epsilon)
        self.convolution = _Convolution(shape)
        self.feed2_norm = nn.LayerNorm(shape.dim, shape.epsilon)
        self.feed2 = _Feed(shape)
        self.norm = nn.LayerNorm(shape.dim, shape.epsilon)

    def forward(self, x: Tensor, lengths: list[int], table: Tensor | None, maps: bool) -> tuple[Tensor, list[Tensor]]:
        x = x + 0.5 * self.feed1(self.feed1_norm(x))
        heard, weights = self.attention(self.attention_norm(x), lengths, table, maps)
        x = x + heard
        x = x + self.convolution(self.convolution_norm(x), lengths)
        x = x + 0.5 * self.feed2(self.feed2_norm(x))
        return self.norm(x).float(), weights


class _Feed(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.activation = shape.activation
        self.up = nn.Linear(shape.dim, shape.inner)
        self.down = nn.Linear(shape.inner, shape.dim)

    def forward(self, x: Tensor) -> Tensor:
        fed: Tensor = self.down(ACTIVATIONS[self.activation](self.up(x)))
        return fed


class _Convolution(nn.Module):
    """Gated, then over the frames of each channel by itself, then mixed again."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.activation = shape.activation
        self.around = (shape.kernel - 1, 0) if shape.causal else (shape.kernel // 2, shape.kernel // 2)
        self.gate = nn.Linear(shape.dim, 2 * shape.dim, bias=False)
        self.depthwise = nn.Conv1d(shape.dim, shape.dim, shape.kernel, groups=shape.dim, bias=False)
        self.norm = nn.LayerNorm(shape.dim, shape.epsilon) if shape.causal else nn.BatchNorm1d(shape.dim)
        self.out = nn.Linear(shape.dim, shape.dim, bias=False)

    def forward(self, x: Tensor, lengths: list[int]) -> Tensor:
        x = functional.glu(self.gate(x), dim=1)
        with torch.autocast(
            x.device.type, enabled=False
        ):  # costs little, and some narrow convolutions of bfloat16 are wrong
            clips = [functional.pad(clip.float().T[None], self.around) for clip in torch.split(x, lengths)]
            x = self.norm(torch.cat([self.depthwise(clip)[0].T for clip in clips]))
        mixed: Tensor = self.out(ACTIVATIONS[self.activation](x))
        return mixed


class _Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.query = nn.Linear(shape.dim, shape.dim)
        self.key = nn.Linear(shape.dim, shape.dim)
        self.value = nn.Linear(shape.dim, shape.dim)
        width = shape.dim // shape.heads
        if shape.positions == "relative":
            self.position = nn.Linear(shape.dim, shape.dim, bias=False)
            self.content_bias = nn.Parameter(torch.empty(shape.heads, width))
            self.position_bias = nn.Parameter(torch.empty(shape.heads, width))
            nn.init.xavier_uniform_(self.content_bias)
            nn.init.xavier_uniform_(self.position_bias)
        if shape.positions == "key":
            self.distances = nn.Embedding(sum(shape.furthest) + 1, width)
        self.out = nn.Linear(shape.dim, shape.dim)

    def forward(self, x: Tensor, lengths: list[int], table: Tensor | None, maps: bool) -> tuple[Tensor, list[Tensor]]:
        turned = x
        if self.shape.positions == "rotary" and table is not None:
            turned = torch.cat([_rotated(clip, table[: len(clip)], self.shape.heads) for clip in torch.split(x, lengths)])
        mixed, weights = [], []
        projected = (self.query(turned), self.key(turned), self.value(x))
        for parts in zip(*(torch.split(each, lengths) for each in projected), strict=True):
            query, key, value = (part.unflatten(1, (self.shape.heads, -1)).transpose(0, 1) for part in parts)
            query, bias = self._biased(query, table)
            heard, seen = _attend(query, key, value, bias, maps)
            mixed.append(heard.transpose(0, 1).flatten(1))
            weights.append(seen)
        return self.out(torch.cat(mixed)), weights

    def _biased(self, query: Tensor, table: Tensor | None) -> tuple[Tensor, "Bias | None"]:
        """The query for the keys, and what is added to its products with them, for the queries first ... last - 1."""
        frames = query.shape[1]
        scale = query.shape[2] ** -0.5
        if self.shape.positions == "key":
            left, right = self.shape.furthest

            def learnt(first: int, last: int) -> Tensor:
                queries, keys = (torch.arange(*ends, device=query.device) for ends in ((first, last), (0, frames)))
                which = (keys - queries[:, None]).clamp(-left, right) + left
                products: Tensor = query[:, first:last] @ self.distances.weight.to(query.dtype).T * scale
                return products.gather(2, which.expand(len(query), -1, -1))

            return query, learnt
        if self.shape.positions == "relative" and table is not None:
            middle = len(table) // 2
            around = self.position(table[middle - frames + 1 : middle + frames])
            positions = around.unflatten(1, (self.shape.heads, -1)).permute(1, 2, 0)
            asked = query + self.position_bias.to(query.dtype)[:, None]

            def sinusoidal(first: int, last: int) -> Tensor:
                # Query i needs distances i ... i - frames + 1, which begin at frames - 1 - i among the positions.
                rows = last - first
                products: Tensor = asked[:, first:last] @ positions[:, :, frames - last : 2 * frames - 1 - first] * scale
                shifted = functional.pad(products, (0, 1)).flatten(1)[:, rows - 1 : -1]
                return shifted.view(len(shifted), rows, -1)[:, :, :frames]

            return query + self.content_bias.to(query.dtype)[:, None], sinusoidal
        return query, None


Bias = Callable[[int, int], Tensor]


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Bias | None, maps: bool) -> tuple[Tensor, Tensor]:
    """Attention of one clip, (heads, frames, width) -> the same, and its maps where they are asked for."""
    frames = query.shape[1]
    rows = frames if bias is None or maps else max(1, BIAS_NUMBERS // (len(query) * frames))
    heard = []
    weights = query.new_empty(0)
    for first in range(0, frames, rows):
        last = min(first + rows, frames)
        added = None if bias is None else bias(first, last)
        if maps:
            scores = (query @ key.transpose(1, 2)).float() * query.shape[2] ** -0.5
            weights = (scores if added is None else scores + added).softmax(dim=-1)
            heard.append(weights.to(value.dtype) @ value)
        else:
            mask = None if added is None else added[None]
            asked = query[None, :, first:last]
            heard.append(functional.scaled_dot_product_attention(asked, key[None], value[None], attn_mask=mask)[0])
    return torch.cat(heard, dim=1), weights


def _rotated(clip: Tensor, angles: Tensor, heads: int) -> Tensor:
    """Each pair of numbers of each head turned by the angle of its frame: (frames, dim) -> the same."""
    first, second = clip.view(len(clip), heads, 2, -1).unbind(2)
    cosine, sine = angles.cos()[:, None], angles.sin()[:, None]
    return torch.stack([first * cosine - second * sine, second * cosine + first * sine], dim=2).flatten(1)


# Names of one block in transformers -> ours.
NAMES = [
    (r"^encoder\.layers\.", "encoder.blocks."),
    (r"\.ffn(\d)_layer_norm\.", r".feed\1_norm."),
    (r"\.ffn(\d)\.intermediate_dense\.", r".feed\1.up."),
    (r"\.ffn(\d)\.output_dense\.", r".feed\1.down."),
    (r"\.self_attn_layer_norm\.", ".attention_norm."),
    (r"\.self_attn\.linear_q\.", ".attention.query."),
    (r"\.self_attn\.linear_k\.", ".attention.key."),
    (r"\.self_attn\.linear_v\.", ".attention.value."),
    (r"\.self_attn\.linear_out\.", ".attention.out."),
    (r"\.self_attn\.linear_pos\.", ".attention.position."),
    (r"\.self_attn\.pos_bias_u$", ".attention.content_bias"),
    (r"\.self_attn\.pos_bias_v$", ".attention.position_bias"),
    (r"\.self_attn\.distance_embedding\.", ".attention.distances."),
    (r"\.conv_module\.layer_norm\.", ".convolution_norm."),
    (r"\.conv_module\.pointwise_conv1\.", ".convolution.gate."),
    (r"\.conv_module\.depthwise_conv\.", ".convolution.depthwise."),
    (r"\.conv_module\.(?:batch_norm|depthwise_layer_norm)\.", ".convolution.norm."),
    (r"\.conv_module\.pointwise_conv2\.", ".convolution.out."),
    (r"(blocks\.\d+)\.final_layer_norm\.", r"\1.norm."),
    (r"^feature_projection\.layer_norm\.", "projection_norm."),
    (r"^feature_projection\.projection\.", "projection."),
]


def flat(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convolutions over a single frame are matrix products: (out, in, 1) -> (out, in)."""
    ends = (".convolution.gate.weight", ".convolution.out.weight")
    return {name: tensor[:, :, 0] if name.endswith(ends) and tensor.dim() == 3 else tensor for name, tensor in named.items()}
