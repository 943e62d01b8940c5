"""The convolutions with which wav2vec 2.0 and its kin hear a waveform: their arithmetic, and the layers themselves.

Each clip goes through alone. A long one goes through in pieces that give the same numbers as the whole.
"""

import math
from collections.abc import Callable
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.upstream import Tap

FRONT_FRAMES = 200  # output frames of one piece: its activations stay in the cache

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_new": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
    "silu": functional.silu,
    "swish": functional.silu,
}


class Convolutions:
    """What a shape says of its convolutions, and what follows from it."""

    convolutions: tuple[tuple[int, int, int], ...]  # channels, kernel, stride
    conv_norm: Literal["group", "layer"]  # group: only after the first, over the whole clip
    conv_bias: bool
    conv_activation: str
    normalise: float | None  # epsilon with which the waveform is brought to zero mean and unit variance

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return self.hop_after(len(self.convolutions))

    @property
    def shortest(self) -> int:
        """Samples that give one frame."""
        return self.reach(len(self.convolutions))

    @property
    def convolution_taps(self) -> tuple[Tap, ...]:
        """What can be heard after each convolution."""
        return tuple(
            Tap(f"conv{depth}", width, self.hop_after(depth))
            for depth, (width, _, _) in enumerate(self.convolutions, start=1)
        )

    def hop_after(self, depth: int) -> int:
        """Samples from one frame to the next after so many convolutions."""
        return math.prod(stride for _, _, stride in self.convolutions[:depth])

    def reach(self, depth: int) -> int:
        """Samples that one frame hears after so many convolutions."""
        samples = 1
        for _, kernel, stride in reversed(self.convolutions[:depth]):
            samples = (samples - 1) * stride + kernel
        return samples

    def frames(self, samples: int, depth: int | None = None) -> int:
        """Frames of so many samples, by the arithmetic of the convolutions."""
        for _, kernel, stride in self.convolutions[:depth]:
            samples = (samples - kernel) // stride + 1
        return samples


class Front(nn.ModuleList):
    """The layers: (samples,) of one clip -> (frames, channels)."""

    def __init__(self, shape: Convolutions) -> None:
        super().__init__()
        self.shape = shape
        channels = 1
        for number, (width, kernel, _) in enumerate(shape.convolutions):
            normed = shape.conv_norm == "layer" or number == 0
            self.append(_Convolution(channels, width, kernel, shape.conv_bias, normed))
            channels = width

    def forward(self, wav: Tensor, depth: int | None = None) -> Tensor:
        """The first `depth` of the convolutions over one clip, or all."""
        convolutions = self._convolutions()
        low = torch.get_autocast_dtype(wav.device.type) if torch.is_autocast_enabled(wav.device.type) else None
        with torch.autocast(wav.device.type, enabled=False):
            wav = wav.to(convolutions[0].weight.dtype)
            if self.shape.normalise is not None:
                wav = functional.layer_norm(wav, wav.shape, eps=self.shape.normalise)
            # The first convolution costs little and meets the raw sound: it keeps every bit.
            layers = [each.laid_out(low if number else None) for number, each in enumerate(convolutions)][:depth]
            if self.shape.conv_norm == "group":
                layers[0] = convolutions[0].folded(wav, self.shape.convolutions[0][2])
            pieces = []
            piece = FRONT_FRAMES if wav.device.type == "cpu" else 100 * FRONT_FRAMES
            total = self.shape.frames(wav.numel(), depth)
            hop, reach = self.shape.hop_after(len(layers)), self.shape.reach(len(layers))
            piece *= self.shape.hop // hop
            for first in range(0, total, piece):
                count = min(piece, total - first)
                begin = first * hop
                pieces.append(self._convolve(wav[begin : begin + (count - 1) * hop + reach], layers))
        return torch.cat(pieces)

    def _convolve(self, wav: Tensor, layers: "list[tuple[Tensor, Tensor | None]]") -> Tensor:
        x = wav[:, None]
        activate = ACTIVATIONS[self.shape.conv_activation]
        numbers = self.shape.convolutions
        for (_, kernel, stride), module, (weight, bias) in zip(numbers, self._convolutions(), layers, strict=False):
            windows = x.unfold(0, kernel, stride).transpose(1, 2).flatten(1)
            x = functional.linear(windows.to(weight.dtype), weight, bias)
            if self.shape.conv_norm == "layer" and module.norm is not None:
                x = functional.layer_norm(x, (x.shape[1],), module.norm.weight.to(x.dtype), module.norm.bias.to(x.dtype))
            x = activate(x)
        return x

    def _convolutions(self) -> "list[_Convolution]":
        return cast("list[_Convolution]", list(self))


class _Convolution(nn.Module):
    """One convolution of the front end, its weight laid out (channels out, kernel * channels in)."""

    def __init__(self, channels: int, width: int, kernel: int, bias: bool, normed: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, kernel * channels))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.norm = nn.LayerNorm(width) if normed else None
        nn.init.kaiming_normal_(self.weight)

    def laid_out(self, dtype: torch.dtype | None) -> tuple[Tensor, Tensor | None]:
        return self.weight.to(dtype), self.bias if self.bias is None else self.bias.to(dtype)

    def folded(self, wav: Tensor, stride: int) -> tuple[Tensor, Tensor]:
        """Weight and bias with the group norm of this clip (one group for each channel) worked into them.

        Mean and variance of a channel over the clip follow from the mean m and covariance C of the windows that the
        filter w sees: w.m + b and w.C.w. So no pass over the channels is needed, and the statistics are exact.
        """
        assert self.norm is not None
        windows = wav.double().unfold(0, self.weight.shape[1], stride)
        mean = windows.mean(dim=0)
        covariance = windows.T @ windows / len(windows) - mean[:, None] * mean
        weight = self.weight.double()
        variance = ((weight @ covariance) * weight).sum(dim=1).clamp(min=0)
        scale = self.norm.weight.double() / (variance + self.norm.eps).sqrt()
        bias = self.norm.bias - scale * (weight @ mean)  # the convolution's own bias falls out with the mean
        return (weight * scale[:, None]).to(wav.dtype), bias.to(wav.dtype)
