"""The encoder of Mimi (Défossez et al. 2024, arXiv:2410.00037): convolutions, a Transformer that looks back, a step down.

State 0 goes into the first block, state i comes out of block i. What is quantized has half as many frames: it is the tap
`latents`, and its codes, first the semantic codebook and then the acoustic ones, are the tap `codes`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.errors import Refused
from engine.nets import seanet
from engine.nets.clips import together
from engine.nets.describing import describing
from engine.nets.front import ACTIVATIONS
from engine.nets.resampling import Resampling
from engine.nets.residual_codes import ResidualCodes
from engine.nets.seanet import Convolution, Seanet
from engine.nets.seanet import Shape as Convolutions
from engine.upstream import Card, Hidden, Tap, Upstream
from engine.weights import renamed

QUERIES = 1024  # that attend at once in a long clip


# What transformers takes for the convolutions where a configuration says nothing.
USUAL = Convolutions(
    filters=64,
    width=512,
    strides=(4, 5, 6, 8),
    kernel=7,
    last_kernel=3,
    residual_kernel=3,
    residuals=1,
    growth=2,
    compress=2,
    causal=True,
    padding="constant",
    shortcut=False,
)


@dataclass(frozen=True)
class Shape:
    """What tells one Mimi from another."""

    convolutions: Convolutions
    layers: int
    heads: int
    inner: int
    activation: str
    epsilon: float
    theta: float  # base of the rotary positions
    back: int  # frames that are attended to, the own one among them
    scale: float  # with which a new network weighs what a block adds
    stride: int  # of the last step down
    rate: int
    semantic: int  # codebooks
    acoustic: int
    entries: int
    depth: int  # width of the codebooks


def read_shape(config: Mapping[str, Any], where: str) -> Shape:
    """The architecture that a configuration describes; what it leaves out has the defaults of transformers."""
    with describing(where):
        heads = int(config.get("num_attention_heads", 8))
        rotary = config.get("rope_parameters") or {}
        semantic = int(config.get("num_semantic_quantizers", 1))
        shape = Shape(
            convolutions=seanet.read_shape(config, USUAL),
            layers=int(config.get("num_hidden_layers", 8)),
            heads=heads,
            inner=int(config.get("intermediate_size", 2048)),
            activation=str(config.get("hidden_act", "gelu")),
            epsilon=float(config.get("norm_eps", 1e-5)),
            theta=float(rotary.get("rope_theta", config.get("rope_theta", 10_000.0))),
            back=int(config.get("sliding_window", 250)),
            scale=float(config.get("layer_scale_initial_scale", 0.01)),
            stride=2,
            rate=int(config.get("sampling_rate", 24_000)),
            semantic=semantic,
            acoustic=int(config.get("num_quantizers", 32)) - semantic,
            entries=int(config.get("codebook_size", 2048)),
            depth=int(config.get("codebook_dim") or config.get("vector_quantization_hidden_dimension", 256)),
        )
        if shape.activation not in ACTIVATIONS:
            raise ValueError(f"the activation '{shape.activation}' is not known")
        if int(config.get("num_key_value_heads", heads)) != heads or rotary.get("rope_type", "default") != "default":
            raise ValueError("keys shared between heads, or rotary positions that are stretched, are not known of any Mimi")
        if config.get("audio_channels", 1) != 1 or config.get("attention_bias"):
            raise ValueError("stereo sound, or attention with biases, is not known of any Mimi")
    rate = config.get("frame_rate") or config.get("_frame_rate")
    if rate and round(shape.rate / shape.convolutions.hop / rate) != shape.stride:
        raise Refused(f"'{where}' gives {rate} frames a second; only a Mimi whose last step down is 2 can be used.")
    return shape


def describe(config: Mapping[str, Any], preprocessor: Mapping[str, Any], where: str) -> Card:
    """What the configuration says of the encoder."""
    shape = read_shape(config, where)
    width, hop = shape.convolutions.width, shape.convolutions.hop * shape.stride
    return Card(
        name="",
        family="",
        layers=shape.layers,
        dims=(width,) * (shape.layers + 1),
        hop=shape.convolutions.hop,
        shortest=1,
        sample_rate=shape.rate,
        attention=True,
        taps=(
            *shape.convolutions.taps,
            Tap("latents", width, hop),
            Tap("codes", shape.semantic + shape.acoustic, hop, codes=True, entries=shape.entries),
        ),
    )


def build(card: Card, config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> Upstream:
    """The encoder as it is before it has learnt anything."""
    return Mimi(card, read_shape(config, card.name))


NAMES = [
    (r"^encoder\.encoder_seanet\.", "encoder."),
    (r"^(?:encoder\.)?encoder_transformer\.layers\.", "blocks."),
    (r"^encoder\.downsample\.", "downsample."),
    (r"^quantizer\.(semantic|acoustic)_residual_vector_quantizer\.", r"\1."),
    (r"^(semantic|acoustic)\.layers\.(\d+)\.codebook$", r"\1.quantizer.books.\2"),
    (r"\.self_attn\.q_proj\.", ".query."),
    (r"\.self_attn\.k_proj\.", ".key."),
    (r"\.self_attn\.v_proj\.", ".value."),
    (r"\.self_attn\.o_proj\.", ".out."),
    (r"\.input_layernorm\.", ".attention_norm."),
    (r"\.post_attention_layernorm\.", ".feed_norm."),
    (r"\.mlp\.fc1\.", ".up."),
    (r"\.mlp\.fc2\.", ".down."),
    (r"\.self_attn_layer_scale\.scale$", ".attention_scale"),
    (r"\.mlp_layer_scale\.scale$", ".feed_scale"),
]


def weights(held: Mapping[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Tensor], Sequence[str]]:
    """The weights of the encoder and the codebooks, each entry the mean of what it was trained with; no decoder."""
    behind = ("decoder", "upsample.")
    ours = {
        name for name in held if not name.startswith(behind) and not name.endswith((".output_proj.weight", ".initialized"))
    }
    given = {name: held[name] for name in ours}
    for name in [name for name in ours if name.endswith(".embed_sum")]:
        stem = name.removesuffix(".embed_sum")
        usage = given.pop(f"{stem}.cluster_usage", None)
        total = given.pop(name)
        given[stem] = total if usage is None else total / usage.clamp(min=1e-5)[:, None]
    return renamed(given, NAMES), sorted(held.keys() - ours)


class Block(nn.Module):
    """Attention over the frames so far and a feed-forward part, each weighed and added to its input; norms come first."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        dim = shape.convolutions.width
        self.heads, self.back, self.activation = shape.heads, shape.back, shape.activation
        self.attention_norm = nn.LayerNorm(dim, shape.epsilon)
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.attention_scale = nn.Parameter(torch.full((dim,), shape.scale))
        self.feed_norm = nn.LayerNorm(dim, shape.epsilon)
        self.up = nn.Linear(dim, shape.inner, bias=False)
        self.down = nn.Linear(shape.inner, dim, bias=False)
        self.feed_scale = nn.Parameter(torch.full((dim,), shape.scale))

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], maps: bool) -> tuple[Tensor, Tensor | None]:
        normed = self.attention_norm(x)
        query, key, value = (
            part(normed).unflatten(1, (self.heads, -1)).transpose(0, 1) for part in (self.query, self.key, self.value)
        )
        query, key = _turned(query.float(), turn), _turned(key.float(), turn)
        weights = self._weights(query, key) if maps else None
        heard = self._attend(query, key, value.float())
        x = x + self.attention_scale * self.out(heard.transpose(0, 1).flatten(1))
        fed = self.down(ACTIVATIONS[self.activation](self.up(self.feed_norm(x))))
        return x + self.feed_scale * fed, weights

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Queries in turns, each with the keys that they can see: memory grows with the clip, not with its square."""
        parts = []
        frames = query.shape[1]
        for first in range(0, frames, QUERIES):
            last = min(first + QUERIES, frames)
            begin = max(0, first - self.back + 1)
            seen = self._seen(first, last, begin, query.device)
            keys, values = key[None, :, begin:last], value[None, :, begin:last]
            parts.append(
                functional.scaled_dot_product_attention(query[None, :, first:last], keys, values, attn_mask=seen)[0]
            )
        return torch.cat(parts, dim=1)

    def _seen(self, first: int, last: int, begin: int, device: torch.device) -> Tensor:
        behind = torch.arange(first, last, device=device)[:, None] - torch.arange(begin, last, device=device)
        return (behind >= 0) & (behind < self.back)

    def _weights(self, query: Tensor, key: Tensor) -> Tensor:
        with torch.autocast(query.device.type, enabled=False):
            scores = query @ key.mT / math.sqrt(query.shape[2])
        return scores.masked_fill(~self._seen(0, query.shape[1], 0, query.device), float("-inf")).softmax(dim=-1)


def _turned(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions (Su et al. 2021): pairs of numbers half a head apart are turned by an angle that grows with time."""
    cos, sin = turn
    left, right = x.chunk(2, dim=-1)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


class Quantizer(nn.Module):
    """A projection and codebooks: (1, dim, frames) -> (frames, codebooks)."""

    def __init__(self, dim: int, codes: int, entries: int, depth: int) -> None:
        super().__init__()
        self.input_proj = nn.Conv1d(dim, depth, 1, bias=False) if depth != dim else nn.Identity()
        self.quantizer = ResidualCodes(codes, entries, depth)

    def forward(self, latents: Tensor) -> Tensor:
        with torch.autocast(latents.device.type, enabled=False):
            codes: Tensor = self.quantizer(self.input_proj(latents)[0].T)
        return codes


class Mimi(Upstream):
    """The encoder, clip by clip."""

    def __init__(self, card: Card, shape: Shape) -> None:
        super().__init__()
        self.card = card
        self.shape = shape
        convolutions, width = shape.convolutions, shape.convolutions.width
        with torch.device("cpu"):  # the network may lie on the meta device; what is computed from nothing does not
            self.resampling = Resampling(shape.rate)
        tail = [nn.ELU(), Convolution(convolutions, convolutions.inner, width, convolutions.last_kernel)]
        self.encoder = Seanet(convolutions, tail)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        repeating = replace(convolutions, padding="replicate")
        self.downsample = Convolution(repeating, width, width, 2 * shape.stride, shape.stride, bias=False)
        self.semantic = Quantizer(width, shape.semantic, shape.entries, shape.depth)
        self.acoustic = Quantizer(width, shape.acoustic, shape.entries, shape.depth)

    def frames(self, samples: int) -> int:
        return -(-self.resampling.samples(samples) // self.shape.convolutions.hop)

    def forward(self, wavs: list[Tensor], attention: bool) -> Hidden:
        clips = [self._states(wav, attention) for wav in wavs]
        return together([states for states, _ in clips], [maps for _, maps in clips] if attention else None)

    def tapped(self, wavs: list[Tensor], names: Sequence[str]) -> dict[str, list[Tensor]]:
        latents = [self._latents(wav) for wav in wavs] if {"latents", "codes"} & set(names) else []
        found = {}
        for name in names:
            if name == "latents":
                found[name] = [each[0].T for each in latents]
            elif name == "codes":
                found[name] = [torch.cat([self.semantic(each), self.acoustic(each)], dim=1) for each in latents]
            else:
                found[name] = [self.encoder(self._sound(wav), int(name.removeprefix("conv"))) for wav in wavs]
        return found

    def _sound(self, wav: Tensor) -> Tensor:
        sound: Tensor = self.resampling(wav.to(self.device, torch.float32))
        return sound

    def _states(self, wav: Tensor, attention: bool = False) -> tuple[list[Tensor], list[Tensor]]:
        activate, convolve = self.encoder.last()
        x = convolve(activate(self.encoder(self._sound(wav))).T[None])[0].T.float()
        width = x.shape[1] // self.shape.heads
        rates = self.shape.theta ** (-torch.arange(0, width, 2, device=x.device) / width)
        angles = torch.arange(len(x), device=x.device)[:, None] * rates
        states, maps = [x], []
        for block in self.blocks:
            x, weights = block(x, (angles.cos(), angles.sin()), attention)
            states.append(x)
            if weights is not None:
                maps.append(weights)
        return states, maps

    def _latents(self, wav: Tensor) -> Tensor:
        states, _ = self._states(wav)
        latents: Tensor = self.downsample(states[-1].T[None]).float()
        return latents
