"""The first wav2vec (Schneider et al. 2019, arXiv:1904.05862) and vq-wav2vec (Baevski et al. 2019, arXiv:1910.05453).

An encoder of convolutions over the waveform, in vq-wav2vec a quantizer, and an aggregator of causal convolutions. Every
layer is normalised with one mean and one variance of a whole clip, over frames and channels alike. So a clip goes through
one layer after another, each in pieces small enough for the cache, and its numbers do not depend on the pieces.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from engine.nets.codebooks import Codebooks, Gumbel, KMeans
from engine.nets.foresight import Foreseer, OverFeatures
from engine.nets.front import ACTIVATIONS
from engine.upstream import Card, Hidden, Tap

EPSILON = 1e-5
PIECE = 256  # frames of one piece

Rows = Callable[[int, int], Tensor]  # frames first ... last - 1 of what a layer gives: (frames, channels)


@dataclass(frozen=True)
class Shape:
    """Everything that tells one architecture of the kin from another."""

    convolutions: tuple[tuple[int, int, int], ...]  # of the encoder: channels, kernel, stride
    aggregator: tuple[tuple[int, int], ...]  # channels, kernel
    logarithm: bool  # the encoder ends with log(1 + |x|)
    aggregator_skips: bool  # each layer of the aggregator is added to its input
    encoder_skips: bool = False
    skip_scale: float = 0.5  # square of what a sum with the input is multiplied with
    bias: bool = True  # of the aggregator's convolutions
    zeros: bool = False  # the aggregator hears zeros before the sound, not its first frame again and again
    affine: bool = True  # norms have weights
    activation: str = "relu"
    quantizer: str = ""  # "gumbel", "kmeans" or none
    codebooks: int = 0
    entries: int = 0  # of each codebook
    quantizer_depth: int = 1  # linear layers that score the entries
    shared: bool = False  # all codebooks have the same entries

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return self.hop_after(len(self.convolutions))

    @property
    def shortest(self) -> int:
        """Samples that give one frame."""
        samples = 1
        for _, kernel, stride in reversed(self.convolutions):
            samples = (samples - 1) * stride + kernel
        return samples

    @property
    def layers(self) -> int:
        """The quantizer, where there is one, and the layers of the aggregator."""
        return len(self.aggregator) + bool(self.quantizer)

    @property
    def dims(self) -> tuple[int, ...]:
        """Of each state."""
        channels = self.convolutions[-1][0]
        return (channels, *(channels for _ in range(bool(self.quantizer))), *(width for width, _ in self.aggregator))

    @property
    def taps(self) -> tuple[Tap, ...]:
        """The convolutions, and the quantizer's codes where it has one."""
        taps = [Tap(f"conv{i}", width, self.hop_after(i)) for i, (width, _, _) in enumerate(self.convolutions, start=1)]
        if self.quantizer:
            taps.append(Tap("codes", self.codebooks, self.hop, codes=True, entries=self.entries))
        return tuple(taps)

    def hop_after(self, depth: int) -> int:
        """Samples from one frame to the next after so many convolutions."""
        return math.prod(stride for _, _, stride in self.convolutions[:depth])

    def frames(self, samples: int, depth: int | None = None) -> int:
        """Frames of so many samples, by the arithmetic of the convolutions."""
        for _, kernel, stride in self.convolutions[:depth]:
            samples = (samples - kernel) // stride + 1
        return samples


class Wav2Vec(Foreseer):
    """The network. State 0 comes out of the encoder, then one state of the quantizer, if any, and one of each layer."""

    def __init__(self, card: Card, shape: Shape, over: OverFeatures | None = None) -> None:
        super().__init__()
        self.card = card
        self.shape = shape
        self.over = over
        self.encoder = None if over else Encoder(shape)
        self.quantizer = quantizer(shape)
        self.aggregator = aggregator(shape)
        self.channels, self.width = shape.convolutions[-1][0], shape.aggregator[-1][0]

    def frames(self, samples: int) -> int:
        return self.over.frames(samples) if self.over else self.shape.frames(samples)

    def framed(self, prepared: Tensor) -> Tensor:
        return framed(self.over or self.encoder, prepared)

    def context(self, frames: Sequence[Tensor]) -> list[Tensor]:
        return [aggregated(self.aggregator, clip)[-1] for clip in frames]

    def forward(self, wavs: list[Tensor], attention: bool) -> Hidden:
        lengths = torch.tensor([self.frames(wav.numel()) for wav in wavs], device=self.device)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.card.differentiable):
            clips = [self._states(wav.to(self.device)) for wav in wavs]
        return Hidden([pad_sequence(list(state), batch_first=True) for state in zip(*clips, strict=True)], lengths)

    def tapped(self, wavs: list[Tensor], names: Sequence[str]) -> dict[str, list[Tensor]]:
        clips = [self.prepared(wav.to(self.device)) for wav in wavs]
        encoder = self.over or self.encoder
        return {name: [tapped(encoder, self.quantizer, clip, name) for clip in clips] for name in names}

    def _states(self, wav: Tensor) -> list[Tensor]:
        x = self.framed(self.prepared(wav))
        states = [x]
        if self.quantizer is not None:
            x = self.quantizer(x)
            states.append(x)
        return states + aggregated(self.aggregator, x)


def aggregator(shape: Shape) -> nn.ModuleList:
    """The layers of an aggregator."""
    widths = [shape.convolutions[-1][0], *(width for width, _ in shape.aggregator)]
    return nn.ModuleList(
        _Causal(shape, before, after, kernel)
        for before, after, (_, kernel) in zip(widths[:-1], widths[1:], shape.aggregator, strict=True)
    )


def aggregated(layers: nn.ModuleList, x: Tensor) -> list[Tensor]:
    """What each layer of an aggregator gives for one clip."""
    states = []
    for layer in layers:
        x = layer(x)
        states.append(x)
    return states


def quantizer(shape: Shape) -> Codebooks | None:
    """The quantizer of a shape."""
    width, sizes = shape.convolutions[-1][0], (shape.codebooks, shape.entries, shape.shared)
    if shape.quantizer == "gumbel":
        return Gumbel(width, *sizes, depth=shape.quantizer_depth, activation=shape.activation)
    if shape.quantizer == "kmeans":
        return KMeans(width, *sizes)
    return None


def framed(encoder: nn.Module | None, prepared: Tensor) -> Tensor:
    """The frames that an encoder makes of one clip."""
    assert encoder is not None
    frames: Tensor = encoder(prepared)
    return frames


def tapped(encoder: nn.Module | None, codebooks: Codebooks | None, clip: Tensor, name: str) -> Tensor:
    """What one tap gives for one clip."""
    if name != "codes":
        assert isinstance(encoder, Encoder)
        found: Tensor = encoder(clip, int(name.removeprefix("conv")))
        return found
    assert codebooks is not None
    return codebooks.codes(framed(encoder, clip))


class Encoder(nn.ModuleList):
    """The convolutions over one clip: (samples,) -> (frames, channels)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        channels = 1
        for width, kernel, stride in shape.convolutions:
            self.append(_Convolution(channels, width, kernel, stride, shape, bias=False))
            channels = width

    def forward(self, wav: Tensor, depth: int | None = None) -> Tensor:
        device = wav.device.type
        low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
        if self.shape.quantizer:
            low = torch.float32  # a number that is rounded may become another code
        with torch.autocast(device, enabled=False):
            rows, total = self._first(wav.float())
            for layer in list(self)[1:depth]:
                assert isinstance(layer, _Convolution)
                rows, total = self._next(layer, rows, total, low)
            x = rows(0, total)
            return x.abs().log1p() if self.shape.logarithm and depth is None else x

    def _first(self, wav: Tensor) -> tuple[Rows, int]:
        """What the first layer gives, computed when it is asked for: there is more of it than of the sound itself.

        Mean and variance follow from the mean m and covariance C of the windows that each filter w sees: w.m and w.C.w.
        """
        layer = self[0]
        assert isinstance(layer, _Convolution)
        windows = wav.double().unfold(0, layer.kernel, layer.stride)
        mean = windows.mean(dim=0)
        covariance = windows.T @ windows / len(windows) - mean[:, None] * mean
        weight = layer.weight.double()
        means = weight @ mean
        centre = means.mean()
        spread = ((weight @ covariance) * weight).sum(dim=1) + (means - centre).square()
        normalise = layer.normaliser(centre.float(), spread.mean().clamp(min=0).float())
        sound = wav[:, None]

        def rows(first: int, last: int) -> Tensor:
            return normalise(layer.convolve(sound[first * layer.stride : (last - 1) * layer.stride + layer.kernel]))

        return rows, len(windows)

    def _next(self, layer: "_Convolution", before: Rows, frames: int, low: torch.dtype) -> tuple[Rows, int]:
        """What a later layer gives: its products are kept, and normalised when they are asked for."""
        total = (frames - layer.kernel) // layer.stride + 1
        products = layer.pieces(before, total, low)
        normalise = layer.normaliser(*layer.statistics(products))
        adds = self.shape.encoder_skips and layer.inputs == layer.outputs
        step = frames // total

        def rows(first: int, last: int) -> Tensor:
            x = normalise(products[first:last])
            if not adds:
                return x
            return (x + before(first * step, (last - 1) * step + 1)[::step]) * math.sqrt(self.shape.skip_scale)

        return rows, total


class _Convolution(nn.Module):
    """One convolution, its norm over a whole clip and its activation; the weight as (channels out, kernel * channels in)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, shape: Shape, *, bias: bool) -> None:
        super().__init__()
        self.inputs, self.outputs, self.kernel, self.stride = inputs, outputs, kernel, stride
        self.activate = ACTIVATIONS[shape.activation]
        self.weight = nn.Parameter(torch.empty(outputs, kernel * inputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.norm = nn.GroupNorm(1, outputs, EPSILON) if shape.affine else None
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def convolve(self, x: Tensor) -> Tensor:
        """(frames, channels) -> (frames, channels), without a norm."""
        windows = x.unfold(0, self.kernel, self.stride).transpose(1, 2).flatten(1)
        return functional.linear(windows, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))

    def pieces(self, before: Rows, total: int, low: torch.dtype) -> Tensor:
        """All frames, convolved piece by piece."""
        size = PIECE if self.weight.device.type == "cpu" else 100 * PIECE
        return torch.cat(
            [
                self.convolve(before(first * self.stride, (last - 1) * self.stride + self.kernel).to(low))
                for first, last in ((begin, min(begin + size, total)) for begin in range(0, total, size))
            ]
        )

    @staticmethod
    def statistics(products: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance over frames and channels."""
        variance, mean = torch.var_mean(products.float(), correction=0)
        return mean, variance

    def normaliser(self, mean: Tensor, variance: Tensor) -> Callable[[Tensor], Tensor]:
        """Norm and activation of a clip with this mean and variance."""
        scale = torch.rsqrt(variance + EPSILON)
        if self.norm is not None:
            scale = scale * self.norm.weight
        shift = -mean * scale if self.norm is None else self.norm.bias - mean * scale
        return lambda products: self.activate(products.float() * scale + shift)


class _Causal(_Convolution):
    """A layer of the aggregator: it hears no frame that comes later."""

    def __init__(self, shape: Shape, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, 1, shape, bias=shape.bias)
        self.zeros, self.adds, self.scale = shape.zeros, shape.aggregator_skips, math.sqrt(shape.skip_scale)
        self.residual = nn.Linear(inputs, outputs, bias=False) if self.adds and inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        device = x.device.type
        low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
        with torch.autocast(device, enabled=False):
            earlier = x.new_zeros(1, x.shape[1]) if self.zeros else x[:1]
            heard = torch.cat([earlier.expand(self.kernel - 1, -1), x])
            products = self.pieces(lambda first, last: heard[first:last], len(x), low)
            y = self.normaliser(*self.statistics(products))(products)
            if not self.adds:
                return y
            return (y + (x if self.residual is None else self.residual(x))) * self.scale
