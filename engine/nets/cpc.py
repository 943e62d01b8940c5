"""Contrastive predictive coding, modified (Riviere et al. 2020, arXiv:2002.02848): convolutions, then a recurrent net.

Each frame is normalised over its channels, so a long clip goes through the convolutions in pieces that give the same
numbers as the whole. The recurrent net begins anew with every clip.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from engine.nets.foresight import Foreseer, OverFeatures, padded
from engine.upstream import Card, Hidden, Tap

# Kernel, stride and how many zeros lie before and after the sound, of each convolution.
CONVOLUTIONS = ((10, 5, 3), (8, 4, 2), (4, 2, 1), (4, 2, 1), (4, 2, 1))
HOP = math.prod(stride for _, stride, _ in CONVOLUTIONS)
SHORTEST = 159
PIECE = 200  # frames of one piece of the convolutions

RECURRENT: dict[str, Callable[..., nn.Module]] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
Norm = Literal["layerNorm", "batchNorm", "ID"]


@dataclass(frozen=True)
class Shape:
    """What the authors' settings may change."""

    channels: int = 256
    width: int = 256  # of the recurrent net
    layers: int = 1
    cell: str = "LSTM"
    norm: Norm = "layerNorm"
    backwards: bool = False  # the recurrent net runs from the end of the sound to its beginning

    @property
    def taps(self) -> tuple[Tap, ...]:
        """What can be heard after each convolution."""
        hops = [math.prod(stride for _, stride, _ in CONVOLUTIONS[:depth]) for depth in range(1, 6)]
        return tuple(Tap(f"conv{depth}", self.channels, hop) for depth, hop in enumerate(hops, start=1))


def frames(samples: int, depth: int = len(CONVOLUTIONS)) -> int:
    """Frames after so many convolutions."""
    for kernel, stride, zeros in CONVOLUTIONS[:depth]:
        samples = (samples + 2 * zeros - kernel) // stride + 1
    return samples


class CPC(Foreseer):
    """The network. State 0 comes out of the convolutions, state i out of recurrent layer i."""

    def __init__(self, card: Card, shape: Shape, over: OverFeatures | None = None) -> None:
        super().__init__()
        self.card = card
        self.shape = shape
        self.over = over
        self.channels, self.width = shape.channels, shape.width
        self.front: Sequence[_Convolution] = nn.ModuleList(  # type: ignore[assignment]
            _Convolution(shape.channels if depth else 1, shape.channels, *sizes, shape.norm)
            for depth, sizes in enumerate(() if over else CONVOLUTIONS)
        )
        cell = RECURRENT[shape.cell]
        self.levels = nn.ModuleList(
            cell(shape.width if level else shape.channels, shape.width, batch_first=True) for level in range(shape.layers)
        )

    def frames(self, samples: int) -> int:
        return self.over.frames(samples) if self.over else frames(samples)

    def framed(self, prepared: Tensor) -> Tensor:
        found: Tensor = self.over(prepared) if self.over else self._front(prepared, len(CONVOLUTIONS))
        return found

    def context(self, frames: Sequence[Tensor]) -> list[Tensor]:
        lengths = [len(clip) for clip in frames]
        x = padded(frames).float()
        with torch.autocast(x.device.type, enabled=False):
            for level in self.levels:
                x = self._recur(level, x, lengths)
        return [clip[:length] for clip, length in zip(x, lengths, strict=True)]

    def forward(self, wavs: list[Tensor], attention: bool) -> Hidden:
        clips = [self._states(wav) for wav in wavs]
        lengths = torch.tensor([len(states[0]) for states in clips], device=self.device)
        return Hidden([pad_sequence(list(state), batch_first=True).float() for state in zip(*clips, strict=True)], lengths)

    def tapped(self, wavs: list[Tensor], names: Sequence[str]) -> dict[str, list[Tensor]]:
        depths = {name: int(name.removeprefix("conv")) for name in names}
        return {name: [self._front(wav, depth).float() for wav in wavs] for name, depth in depths.items()}

    def _states(self, wav: Tensor) -> list[Tensor]:
        x = self.framed(self.prepared(wav.to(self.device)))
        states = [x]
        with torch.autocast(x.device.type, enabled=False):  # what is rounded at one frame is heard at all that follow
            x = x.float()
            for level in self.levels:
                x = self._recur(level, x[None], [len(x)])[0]
                states.append(x)
        return states

    def _recur(self, level: nn.Module, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """(clips, frames, channels) -> (clips, frames, width)."""
        if not self.shape.backwards:
            return level(x)[0]  # type: ignore[no-any-return]
        turned = [clip[:length].flip(0) for clip, length in zip(x, lengths, strict=True)]
        heard = level(padded(turned))[0]
        return padded([clip[:length].flip(0) for clip, length in zip(heard, lengths, strict=True)])

    def _front(self, wav: Tensor, depth: int) -> Tensor:
        """The first `depth` convolutions over one clip: (samples,) -> (frames, channels)."""
        wav = wav.to(self.device, torch.float32)[:, None]
        totals = [frames(len(wav), each) for each in range(depth + 1)]
        piece = PIECE * (HOP // math.prod(stride for _, stride, _ in CONVOLUTIONS[:depth]))
        piece *= 1 if wav.device.type == "cpu" else 100
        starts = range(0, totals[depth], piece)
        return torch.cat([self._span(wav, totals, depth, first, min(first + piece, totals[depth])) for first in starts])

    def _span(self, x: Tensor, totals: list[int], depth: int, first: int, last: int) -> Tensor:
        """The frames first ... last - 1 after so many convolutions, with zeros where the clip has none."""
        begin, end = max(0, first), min(last, totals[depth])
        if depth:
            kernel, stride, zeros = CONVOLUTIONS[depth - 1]
            earliest = begin * stride - zeros
            heard = self._span(x, totals, depth - 1, earliest, earliest + (end - begin - 1) * stride + kernel)
            x = self.front[depth - 1](heard)
        else:
            x = x[begin:end]
        return functional.pad(x, (0, 0, begin - first, last - end))


class _Convolution(nn.Module):
    """One convolution without padding, its norm and a ReLU: (frames, channels) -> (frames, channels)."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int, zeros: int, norm: Norm) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(channels, width, kernel, stride)
        norms = {"layerNorm": _ChannelNorm, "batchNorm": nn.BatchNorm1d, "ID": nn.Identity}
        self.norm = norms[norm](width)

    def forward(self, x: Tensor) -> Tensor:
        convolved = self.convolution(x.T[None])[0].T
        return functional.relu(self.norm(convolved.float()))


class _ChannelNorm(nn.Module):
    """Zero mean and unit variance over the channels of each frame. Its authors take the unbiased variance."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, width, 1))
        self.bias = nn.Parameter(torch.zeros(1, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=1, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + 1e-5) * self.weight.flatten() + self.bias.flatten()
