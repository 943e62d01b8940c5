"""One network for wav2vec 2.0, HuBERT, WavLM, data2vec-audio, UniSpeech and their kin.

A convolutional front end over the waveform, a projection, a convolution that tells positions, and Transformer blocks.
What differs between the families is in `Shape`. The weights come from any file that uses the names that transformers and
torchaudio share (`standard` below); they are laid out for large matrix products.

No clip ever sees padding: convolutions and attention work clip by clip, everything else on the frames of all clips
put one after another. So a clip's features do not depend on its neighbours, and nothing is computed for padding. Long
clips go through the front end in pieces that give the same numbers as the whole.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from engine.errors import Refused
from engine.nets.contextual import Contextual
from engine.nets.dropout import attended, dropped
from engine.nets.front import ACTIVATIONS, Convolutions, Front
from engine.nets.recomputing import through
from engine.upstream import Card, Hidden, Tap
from engine.weights import fit, renamed

BIAS_NUMBERS = 2**24  # most numbers of relative position bias held at once


@dataclass(frozen=True)
class Shape(Convolutions):
    """Everything that tells one architecture of the kin from another."""

    dim: int
    layers: int
    heads: int
    inner: int  # width between the two layers of a block's feed-forward part
    convolutions: tuple[tuple[int, int, int], ...]  # channels, kernel, stride
    conv_norm: Literal["group", "layer"] = "group"  # group: only after the first, over the whole clip
    conv_bias: bool = False
    projection_norm: bool = True
    position_kernel: int = 128
    position_groups: int = 16
    position_depth: int = 1
    position_norm: Literal["", "batch", "layer"] = ""  # batch: before the convolution, layer: after it
    norm_first: bool = False  # blocks normalise their input, not their output
    buckets: int = 0  # of the relative position bias of WavLM; 0 = none
    furthest: int = 800  # distance in frames where the last bucket begins
    squeeze: int = 1  # frames of the front end that become one before the first block (SEW)
    adapter: int = 0  # width of the small layer at the end of each block; 0 = none
    activation: str = "gelu"
    conv_activation: str = "gelu"
    epsilon: float = 1e-5
    dropout: float = 0.0  # while it learns: of the input of the first block, of attention, of what blocks add
    layer_drop: float = 0.0  # while it learns: share of the blocks that are left out
    normalise: float | None = None  # epsilon with which the waveform is brought to zero mean and unit variance
    codebooks: int = 0  # of the quantizer that the file holds too
    entries: int = 0  # of each codebook

    def __post_init__(self) -> None:
        for name in (self.activation, self.conv_activation):
            if name not in ACTIVATIONS:
                raise Refused(f"The activation '{name}' is not known. There is: {', '.join(ACTIVATIONS)}.")
        sizes = (
            self.dim,
            self.layers,
            self.heads,
            self.inner,
            self.position_kernel,
            self.position_groups,
            self.position_depth,
            self.squeeze,
        )
        if min(*sizes, *(number for convolution in self.convolutions for number in convolution)) < 1:
            raise Refused("Every size of a network is at least 1.")
        if self.dim % self.heads:
            raise Refused(f"A width of {self.dim} cannot be divided among {self.heads} attention heads.")

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return self.squeeze * super().hop

    @property
    def shortest(self) -> int:
        """Samples that give one frame."""
        return super().shortest + (self.squeeze - 1) * super().hop

    @property
    def taps(self) -> tuple[Tap, ...]:
        """The convolutions, and the quantizer's codes where it has one."""
        codes = Tap("codes", self.codebooks, super().hop, codes=True, entries=self.entries)
        return (*self.convolution_taps, codes) if self.codebooks else self.convolution_taps


class Wav2Vec2(Contextual):
    """The network. State 0 goes into the first block, state i comes out of block i, before any final norm."""

    recompute = False  # what blocks gave is computed again on the way back

    def __init__(self, card: Card, shape: Shape) -> None:
        super().__init__()
        self.card = card
        self.shape = shape
        self.front = Front(shape)
        self.channels = channels = shape.convolutions[-1][0]
        self.width = shape.dim
        self.quantizer = nn.Linear(channels, shape.codebooks * shape.entries) if shape.codebooks else None
        self.projection_norm = nn.LayerNorm(channels, shape.epsilon) if shape.projection_norm else nn.Identity()
        same = shape.squeeze > 1 and channels == shape.dim  # where SEW projects nothing
        self.projection = nn.Identity() if same else nn.Linear(channels, shape.dim)
        self.positions = nn.ModuleList(_Position(shape) for _ in range(shape.position_depth))
        self.norm = nn.Identity() if shape.norm_first else nn.LayerNorm(shape.dim, shape.epsilon)
        self.blocks = nn.ModuleList(_Block(shape) for _ in range(shape.layers))
        self.distances = nn.Embedding(shape.buckets, shape.heads) if shape.buckets else None
        self._begin()

    def _begin(self) -> None:
        """Fresh weights, as the authors of wav2vec 2.0 draw them."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        if self.quantizer is not None:
            nn.init.normal_(self.quantizer.weight)
        for position in self.positions:
            assert isinstance(position, _Position)
            weight = position.convolution.weight
            nn.init.normal_(weight, std=2 / math.sqrt(weight.shape[2] * self.shape.dim))
            nn.init.zeros_(position.convolution.bias)  # type: ignore[arg-type]

    def frames(self, samples: int) -> int:
        return self.shape.frames(samples) // self.shape.squeeze

    def forward(self, wavs: list[Tensor], attention: bool) -> Hidden:
        lengths = [self.frames(wav.numel()) for wav in wavs]
        fronts = self.local(wavs)
        states, maps = self._states(self.projected(torch.cat(fronts)), [len(front) for front in fronts], attention)
        padded = [pad_sequence(list(torch.split(state, lengths)), batch_first=True).float() for state in states]
        return Hidden(
            padded, torch.tensor(lengths, device=self.device), [_pad_maps(each) for each in maps] if attention else None
        )

    def local(self, wavs: list[Tensor]) -> list[Tensor]:
        return [self.front(wav.to(self.device)) for wav in wavs]

    def projected(self, local: Tensor) -> Tensor:
        # Sums stay in float32 also where products do not.
        projected: Tensor = self.projection(self.projection_norm(local)).float()
        return projected

    def contextual(self, x: Tensor, lengths: list[int]) -> list[Tensor]:
        return self._states(x, lengths, False)[0]

    @property
    def feeds(self) -> Sequence[nn.Module]:
        return [cast(_Block, block).down for block in self.blocks]

    def without_front(self) -> Self:
        parts = (self.front, self.projection_norm, self.projection, self.quantizer)
        return deepcopy(self, {id(part): None for part in parts})

    def _states(self, x: Tensor, lengths: list[int], attention: bool) -> tuple[list[Tensor], list[list[Tensor]]]:
        """`lengths` are those before frames are squeezed into one."""
        clips = torch.split(x, lengths)
        lengths = [length // self.shape.squeeze for length in lengths]
        x = self.norm(torch.cat([self._squeezed(clip) + self._position(clip) for clip in clips]))
        x = dropped(x, self.shape.dropout if self.training else 0.0)
        bias = self._bias(max(lengths))
        states, maps = [x], []
        for block in self.blocks:
            if not self.training or float(torch.rand(())) >= self.shape.layer_drop:
                x, weights = through(block, x, lengths, bias, attention, recompute=self.recompute)
                maps.append(weights)
            states.append(x)
        return states, maps

    def tapped(self, wavs: list[Tensor], names: Sequence[str]) -> dict[str, list[Tensor]]:
        clips = [wav.to(self.device) for wav in wavs]
        found: dict[str, list[Tensor]] = {}
        for name in names:
            if name != "codes":
                found[name] = [self.front(clip, int(name.removeprefix("conv"))).float() for clip in clips]
                continue
            assert self.quantizer is not None
            logits = [self.quantizer(self.projection_norm(self.front(clip))) for clip in clips]
            found[name] = [each.unflatten(1, (self.shape.codebooks, -1)).argmax(dim=2) for each in logits]
        return found

    def _squeezed(self, clip: Tensor) -> Tensor:
        squeeze = self.shape.squeeze
        return clip if squeeze == 1 else functional.avg_pool1d(clip.T[None], squeeze, squeeze)[0].T

    def _position(self, clip: Tensor) -> Tensor:
        x = clip.T[None]
        for position in self.positions:
            x = position(x)
        return x[0].T

    def _bias(self, frames: int) -> Tensor | None:
        """WavLM's bias for each head and each distance key - query, from -(frames - 1) to frames - 1."""
        if self.distances is None:
            return None
        distance = torch.arange(1 - frames, frames, device=self.device)
        half = self.shape.buckets // 2
        exact = half // 2
        apart = distance.abs()
        logarithm = torch.log(apart.float().clamp(min=1) / exact) / math.log(self.shape.furthest / exact) * (half - exact)
        far = (exact + logarithm).long().clamp(max=half - 1)
        bucket = (distance > 0).long() * half + torch.where(apart < exact, apart, far)
        table: Tensor = self.distances(bucket)
        return table.T

    def load_standard(self, state: Mapping[str, Tensor], source: str, unused: Iterable[str] = ()) -> None:
        """Take the weights of a file, all of them; `source` names it where that fails, `unused` what it holds besides."""
        self.loaded = fit(self, standard(state, self.shape), source, tuple(unused))


class _Position(nn.Module):
    """A grouped convolution over the frames of a clip: (1, dim, frames) -> the same."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.batch_norm = nn.BatchNorm1d(shape.dim) if shape.position_norm == "batch" else None
        kernel, groups = shape.position_kernel, shape.position_groups
        self.convolution = nn.Conv1d(shape.dim, shape.dim, kernel, padding=kernel // 2, groups=groups, stride=shape.squeeze)
        self.layer_norm = shape.position_norm == "layer"
        self.activation = shape.conv_activation
        # oneDNN's bfloat16 convolution (torch 2.13) gives wrong numbers for some narrow groups: 4 channels and 16 taps.
        self.exact = shape.dim // groups % 16 != 0

    def forward(self, x: Tensor) -> Tensor:
        frames = x.shape[2] // self.convolution.stride[0]
        if self.batch_norm is not None:
            x = self.batch_norm(x)
        with torch.autocast(x.device.type, enabled=torch.is_autocast_enabled(x.device.type) and not self.exact):
            x = self.convolution(x)[:, :, :frames]  # an even kernel gives one frame too many
        if self.layer_norm:
            x = functional.layer_norm(x.transpose(1, 2), (x.shape[1],)).transpose(1, 2)
        return ACTIVATIONS[self.activation](x)


class _Block(nn.Module):
    """Attention and feed-forward part, each added to its input; the norms before or after, as the shape says."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.norm_first = shape.norm_first
        self.activation = shape.activation
        self.dropout = shape.dropout
        self.qkv = nn.Linear(shape.dim, 3 * shape.dim)
        self.out = nn.Linear(shape.dim, shape.dim)
        self.attention_norm = nn.LayerNorm(shape.dim, shape.epsilon)
        self.up = nn.Linear(shape.dim, shape.inner)
        self.down = nn.Linear(shape.inner, shape.dim)
        self.feed_norm = nn.LayerNorm(shape.dim, shape.epsilon)
        self.gate = nn.Linear(shape.dim // shape.heads, 8) if shape.buckets else None
        self.gate_scale = nn.Parameter(torch.ones(1, shape.heads, 1, 1)) if shape.buckets else None
        self.adapter = _adapter(shape) if shape.adapter else None

    def forward(self, x: Tensor, lengths: list[int], bias: Tensor | None, maps: bool) -> tuple[Tensor, list[Tensor]]:
        if self.norm_first:
            mixed, weights = self._attend(self.attention_norm(x), lengths, bias, maps)
            x = x + self._dropped(mixed)
            x = x + self._dropped(self._feed(self.feed_norm(x)))
            return (x if self.adapter is None else x + self.adapter(x)), weights
        mixed, weights = self._attend(x, lengths, bias, maps)
        x = self.attention_norm(x + self._dropped(mixed))
        return self.feed_norm(x + self._dropped(self._feed(x))), weights

    def _dropped(self, x: Tensor) -> Tensor:
        return dropped(x, self.dropout if self.training else 0.0)

    def _feed(self, x: Tensor) -> Tensor:
        fed: Tensor = self.down(ACTIVATIONS[self.activation](self.up(x)))
        return fed

    def _attend(self, x: Tensor, lengths: list[int], bias: Tensor | None, maps: bool) -> tuple[Tensor, list[Tensor]]:
        mixed, weights = [], []
        for clip, qkv in zip(torch.split(x, lengths), torch.split(self.qkv(x), lengths), strict=True):
            query, key, value = qkv.view(len(clip), 3, self.heads, -1).permute(1, 2, 0, 3)[
                :, None
            ]  # (1, heads, frames, width)
            gate = self._gate(clip) if bias is not None else None
            if maps:
                weights.append(_weights(query, key, _bias_rows(bias, gate, 0, len(clip)))[0])
                heard = weights[-1][None].to(value.dtype) @ value
            else:
                heard = _attention(query, key, value, bias, gate, self.dropout if self.training else 0.0)
            mixed.append(heard[0].transpose(0, 1).flatten(1))
        return self.out(torch.cat(mixed)), weights

    def _gate(self, clip: Tensor) -> Tensor:
        """How much each head heeds distance at each frame (Chi et al. 2022, as WavLM uses it): (heads, frames, 1)."""
        assert self.gate is not None and self.gate_scale is not None
        split = clip.view(len(clip), self.heads, -1).transpose(0, 1)
        first, second = self.gate(split).unflatten(-1, (2, 4)).sum(-1).sigmoid().chunk(2, dim=-1)
        gate: Tensor = first * (second * self.gate_scale[0] - 1.0) + 2.0
        return gate


def _adapter(shape: Shape) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(shape.dim), nn.Linear(shape.dim, shape.adapter), nn.ReLU(), nn.Linear(shape.adapter, shape.dim)
    )


def _attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, gate: Tensor | None, dropout: float
) -> Tensor:
    if bias is None:
        return attended(query, key, value, dropout)
    heads, frames = query.shape[1:3]
    rows = max(1, BIAS_NUMBERS // (heads * frames))
    parts = []
    for first in range(0, frames, rows):
        last = min(first + rows, frames)
        mask = _bias_rows(bias, gate, first, last, frames)
        assert mask is not None
        parts.append(attended(query[:, :, first:last], key, value, dropout, mask.to(query.dtype)))
    return torch.cat(parts, dim=2)


def _bias_rows(bias: Tensor | None, gate: Tensor | None, first: int, last: int, frames: int = 0) -> Tensor | None:
    """The gated bias of the queries first ... last - 1 towards every frame: (1, heads, queries, frames)."""
    if bias is None or gate is None:
        return None
    frames = frames or last
    longest = (bias.shape[1] + 1) // 2
    # Query i needs distances -i ... frames - 1 - i, which begin at longest - 1 - i in the table.
    windows = bias[:, longest - last : longest - 1 - first + frames].unfold(1, frames, 1).flip(1)
    return (gate[:, first:last] * windows)[None]


def _weights(query: Tensor, key: Tensor, bias: Tensor | None) -> Tensor:
    scores = (query @ key.transpose(2, 3)).float() / math.sqrt(query.shape[-1])
    return (scores if bias is None else scores + bias).softmax(dim=-1)


def _pad_maps(maps: list[Tensor]) -> Tensor:
    """(heads, frames, frames) of each clip -> (clips, heads, frames, frames), zero where there is no frame."""
    longest = max(each.shape[1] for each in maps)
    return torch.stack([functional.pad(each, (0, longest - each.shape[2], 0, longest - each.shape[1])) for each in maps])


# Names that transformers and torchaudio share -> ours. What is fused or laid out anew is done in `standard`.
NAMES = [
    (r"encoder\.transformer\.", "encoder."),  # torchaudio
    (r"encoder\.feature_projection\.", "feature_projection."),
    (r"attention\.attention\.", "attention."),
    (r"feature_extractor\.conv_layers\.(\d+)\.(?:conv\.)?layer_norm\.", r"front.\1.norm."),
    (r"feature_extractor\.conv_layers\.(\d+)\.conv\.", r"front.\1."),
    (r"^(?:feature_projection\.)?layer_norm\.", "projection_norm."),
    (r"^feature_projection\.(weight|bias)$", r"projection.\1"),  # SEW
    (r"feature_projection\.projection\.", "projection."),
    (r"encoder\.pos_conv_embed\.layers\.(\d+)\.conv\.", r"positions.\1.convolution."),
    (r"encoder\.pos_conv_embed\.conv\.", "positions.0.convolution."),
    (r"encoder\.pos_conv_embed\.batch_norm\.", "positions.0.batch_norm."),
    (r"encoder\.layer_norm\.", "norm."),
    (r"encoder\.layers\.0\.attention\.rel_attn_embed\.", "distances."),
    (r"encoder\.layers\.(\d+)\.", r"blocks.\1."),
    (r"^quantizer\.weight_proj\.", "quantizer."),
    (r"\.attention\.out_proj\.", ".out."),
    (r"\.attention\.gru_rel_pos_linear\.", ".gate."),
    (r"\.attention\.gru_rel_pos_const$", ".gate_scale"),
    (r"(blocks\.\d+)\.layer_norm\.", r"\1.attention_norm."),
    (r"(blocks\.\d+)\.final_layer_norm\.", r"\1.feed_norm."),
    (r"\.feed_forward\.intermediate_dense\.", ".up."),
    (r"\.feed_forward\.output_dense\.", ".down."),
    (r"\.adapter_layer\.norm\.", ".adapter.0."),
    (r"\.adapter_layer\.linear_1\.", ".adapter.1."),
    (r"\.adapter_layer\.linear_2\.", ".adapter.3."),
]


def standard(state: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    """A state dict under our names and in our layout. A name that is not known is passed on as it is."""
    named = renamed(state, NAMES)
    if shape.norm_first:  # a norm after the last block, which no state has
        named.pop("norm.weight", None)
        named.pop("norm.bias", None)
    for number in range(len(shape.convolutions)):
        weight = named.get(f"front.{number}.weight")
        if weight is not None and weight.dim() == 3:
            named[f"front.{number}.weight"] = weight.transpose(1, 2).flatten(1)
    _undo_weight_norm(named)
    for number in range(shape.layers):
        for kind in ("weight", "bias"):
            parts = [f"blocks.{number}.attention.{letter}_proj.{kind}" for letter in "qkv"]
            joint = f"blocks.{number}.attention.in_proj_{kind}"
            if all(part in named for part in parts):
                named[f"blocks.{number}.qkv.{kind}"] = torch.cat([named.pop(part) for part in parts])
            elif joint in named:
                named[f"blocks.{number}.qkv.{kind}"] = named.pop(joint)
    return named


def _undo_weight_norm(named: dict[str, Tensor]) -> None:
    """Weight normalisation over the kernel positions: weight = g * v / |v|, under its old and its new names."""
    for size, direction in (
        ("weight_g", "weight_v"),
        ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    ):
        for name in [name for name in named if name.endswith(f"convolution.{size}")]:
            stem = name.removesuffix(size)
            if stem + direction in named:
                v = named.pop(stem + direction).float()
                named[stem + "weight"] = named.pop(name).float() * v / v.norm(dim=(0, 1), keepdim=True)
