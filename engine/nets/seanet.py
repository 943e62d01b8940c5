"""The convolutional encoder of EnCodec (Défossez et al. 2022, arXiv:2210.13438), which Mimi has too.

Every convolution pads its input itself, so that it gives ceil(samples / stride) frames. A clip goes through alone, a long
one in pieces with so much sound around them that the numbers are those of the whole.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.errors import Refused
from engine.nets.windows import stitched
from engine.upstream import Tap

PIECE_SAMPLES = 2**17  # of one piece of a long sound: its activations take tens of MB


@dataclass(frozen=True)
class Shape:
    """What tells one such encoder from another."""

    filters: int
    width: int  # of what comes out
    strides: tuple[int, ...]  # from the first to the last
    kernel: int
    last_kernel: int
    residual_kernel: int
    residuals: int  # blocks before each step down
    growth: int  # of the dilation from one of these blocks to the next
    compress: int
    causal: bool
    padding: Literal["reflect", "constant", "replicate"]
    shortcut: bool  # a convolution beside each residual block; else what goes in is added as it is

    def __post_init__(self) -> None:
        if self.padding not in ("reflect", "constant", "replicate"):
            raise Refused(f"The padding '{self.padding}' of a convolution is not known.")
        sizes = (self.filters, self.width, self.kernel, self.last_kernel, self.residual_kernel, self.growth, self.compress)
        if min(*sizes, *self.strides) < 1:
            raise Refused("Every size of a network is at least 1.")

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        hop: int = math.prod(self.strides)
        return hop

    @property
    def inner(self) -> int:
        """Channels after the last step down."""
        return self.filters << len(self.strides)

    @property
    def taps(self) -> tuple[Tap, ...]:
        """What comes out of each convolution that steps down."""
        return tuple(
            Tap(f"conv{depth}", self.filters * 2**depth, math.prod(self.strides[:depth]))
            for depth in range(1, len(self.strides) + 1)
        )


# What transformers calls the fields of a shape.
SETTINGS = {
    "filters": "num_filters",
    "width": "hidden_size",
    "kernel": "kernel_size",
    "last_kernel": "last_kernel_size",
    "residual_kernel": "residual_kernel_size",
    "residuals": "num_residual_layers",
    "growth": "dilation_growth_rate",
    "compress": "compress",
    "causal": "use_causal_conv",
    "padding": "pad_mode",
    "shortcut": "use_conv_shortcut",
}


def read_shape(config: Mapping[str, Any], usual: Shape) -> Shape:
    """The shape that a configuration describes; what it leaves out is as usual."""
    said = {ours: type(getattr(usual, ours))(config[theirs]) for ours, theirs in SETTINGS.items() if theirs in config}
    upwards = config.get("upsampling_ratios")
    return replace(usual, **said, strides=tuple(int(stride) for stride in reversed(upwards)) if upwards else usual.strides)


class Convolution(nn.Module):
    """A convolution that pads its input itself: (1, channels, frames) -> (1, width, ceil(frames / stride))."""

    def __init__(
        self, shape: Shape, channels: int, width: int, kernel: int, stride: int = 1, dilation: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, width, kernel, stride, dilation=dilation, bias=bias)
        self.stride = stride
        self.reach = (kernel - 1) * dilation + 1  # inputs that one output hears
        self.causal, self.padding = shape.causal, shape.padding

    def forward(self, x: Tensor) -> Tensor:
        frames = x.shape[2]
        around = self.reach - self.stride
        behind = 0 if self.causal else around // 2
        left = around - behind
        right = behind + -frames % self.stride
        short = max(left, right) + 1 - frames if self.padding == "reflect" else 0
        if short > 0:  # a mirror needs something to show: zeros, of which nothing is left afterwards
            x = functional.pad(functional.pad(x, (0, short)), (left, right), mode="reflect")[:, :, :-short]
        else:
            x = functional.pad(x, (left, right), mode=self.padding)
        out: Tensor = self.conv(x)
        return out


class Residual(nn.Module):
    """Two convolutions with a narrow middle, added to their input."""

    def __init__(self, shape: Shape, width: int, dilation: int) -> None:
        super().__init__()
        middle = width // shape.compress
        self.block = nn.ModuleList(
            [
                nn.ELU(),
                Convolution(shape, width, middle, shape.residual_kernel, dilation=dilation),
                nn.ELU(),
                Convolution(shape, middle, width, 1),
            ]
        )
        self.shortcut = Convolution(shape, width, width, 1) if shape.shortcut else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        beside: Tensor = self.shortcut(x)
        for layer in self.block:
            x = layer(x)
        return beside + x


class Seanet(nn.Module):
    """The convolutions up to the last step down, then `tail`, which the caller runs."""

    def __init__(self, shape: Shape, tail: Sequence[nn.Module]) -> None:
        super().__init__()
        self.shape = shape
        layers: list[nn.Module] = [Convolution(shape, 1, shape.filters, shape.kernel)]
        self.ends: list[int] = []  # number of layers up to each step down
        hop, context = 1, shape.kernel - 1
        width = shape.filters
        for stride in shape.strides:
            for number in range(shape.residuals):
                layers.append(Residual(shape, width, shape.growth**number))
                context += (shape.residual_kernel - 1) * shape.growth**number * hop
            layers += [nn.ELU(), Convolution(shape, width, 2 * width, 2 * stride, stride)]
            context += (2 * stride - 1) * hop
            hop *= stride
            width *= 2
            self.ends.append(len(layers))
        self.context = -(-context // shape.hop) * shape.hop  # samples on either side beyond which nothing is heard
        self.layers = nn.ModuleList([*layers, *tail])

    def forward(self, wav: Tensor, depth: int | None = None) -> Tensor:
        """(samples,) at the model's rate -> (frames, channels) after `depth` steps down, all of them unless it is given."""
        depth = len(self.ends) if depth is None else depth
        window = -(-PIECE_SAMPLES // self.shape.hop) * self.shape.hop + 2 * self.context
        overlap = 2 * self.context
        hop = math.prod(self.shape.strides[:depth])
        return stitched(wav, window, overlap, hop, lambda piece: [self._convolve(piece, self.ends[depth - 1])])[0]

    def _convolve(self, wav: Tensor, end: int) -> Tensor:
        x = wav[None, None]
        for layer in self.layers[:end]:
            x = layer(x)
        return x[0].T.float()

    def last(self) -> Sequence[nn.Module]:
        """The layers behind the last step down."""
        return list(self.layers[self.ends[-1] :])


def weighed(held: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights for which size and direction are kept apart (old names and new) as one: g * v / |v| of each filter."""
    plain = dict(held)
    pairs = (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1"))
    for size, direction in pairs:
        for name in [name for name in held if name.endswith(f".{size}")]:
            stem = name.removesuffix(size)
            v = plain.pop(stem + direction).float()
            plain[f"{stem}weight"] = plain.pop(name).float() * v / torch.linalg.vector_norm(v, dim=(1, 2), keepdim=True)
    return plain
