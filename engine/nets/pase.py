"""PASE+ (Ravanelli et al. 2020, arXiv:2001.09239): band-pass filters, convolutions, and a quasi-recurrent net.

The first of eight blocks filters the sound with bands whose edges are learnt (SincNet, Ravanelli and Bengio 2018,
arXiv:1808.00158). Each block reflects what it hears at both ends of the clip and ends in a batch norm and a PReLU. A
quasi-recurrent net (Bradbury et al. 2017, arXiv:1611.01576) follows. What came out of the first seven blocks is averaged
down to the frames of the last and added to its output.

Over how many steps it is averaged is the whole part of their number over that of the frames. Where a clip is a little
shorter than a whole number of hops, this is 159 samples and not 160, so that the averages run ahead of the frames by a
sample more with each frame. That is how the authors compute it, and what their network was trained with.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.nets.clips import together
from engine.upstream import SAMPLE_RATE, Card, Hidden, Tap, Upstream

STRIDES = (1, 10, 2, 1, 2, 1, 2, 2)
HOP = math.prod(STRIDES)
FILTER = 251  # samples of a band-pass filter
REACH = FILTER // 2
LOWEST, NARROWEST = 50, 50  # Hz, of a band's lower edge and of its width
PIECE = 4_000  # steps of the second block worked on at a time: the first gives a vector for every sample


@dataclass(frozen=True)
class Shape:
    """What differs between networks of this kind."""

    channels: tuple[int, ...] = (64, 64, 128, 128, 256, 256, 512, 512)  # of each block
    kernels: tuple[int, ...] = (FILTER, 20, 11, 11, 11, 11, 11, 11)
    recurrent: int = 512  # width of the quasi-recurrent net
    width: int = 256  # of what comes out

    @property
    def taps(self) -> tuple[Tap, ...]:
        """What can be heard after each block."""
        hops = itertools.accumulate(STRIDES, lambda hop, stride: hop * stride)
        return tuple(
            Tap(f"conv{depth}", channels, hop)
            for depth, (channels, hop) in enumerate(zip(self.channels, hops, strict=True), start=1)
        )

    def steps(self, samples: int) -> list[int]:
        """Samples of a clip, and how many steps come out of each block."""
        counts = [samples]
        for kernel, stride in zip(self.kernels, STRIDES, strict=True):
            counts.append((counts[-1] + sum(margins(kernel, stride)) - kernel) // stride + 1)
        return counts

    @property
    def shortest(self) -> int:
        """Samples of the shortest clip: what is reflected at its ends must be there, at every block."""
        ends = [max(margins(kernel, stride)) for kernel, stride in zip(self.kernels, STRIDES, strict=True)]
        return next(
            samples
            for samples in itertools.count(ends[0] + ends[1] + 1)
            if all(steps > end for steps, end in zip(self.steps(samples), ends, strict=False))
        )


def margins(kernel: int, stride: int) -> tuple[int, int]:
    """How many steps are reflected before and after."""
    return kernel // 2 - (stride > 1 or kernel % 2 == 0), kernel // 2


class Pase(Upstream):
    """The network. State 0 comes out of the last block, state 1 is what the authors call the embedding."""

    def __init__(self, card: Card, shape: Shape) -> None:
        super().__init__()
        self.card = card
        self.shape = shape
        self.bands = _Bands(shape.channels[0])
        self.blocks: Sequence[_Block] = nn.ModuleList(  # type: ignore[assignment]
            _Block(before, after, kernel, stride)
            for before, after, kernel, stride in zip(
                shape.channels, shape.channels[1:], shape.kernels[1:], STRIDES[1:], strict=False
            )
        )
        self.skips = nn.ModuleList(nn.Conv1d(channels, shape.width, 1, bias=False) for channels in shape.channels[:-1])
        self.gates = nn.Linear(2 * shape.channels[-1], 3 * shape.recurrent)
        self.out = nn.Conv1d(shape.recurrent, shape.width, 1)
        self.norm = nn.BatchNorm1d(shape.width, affine=False)

    def frames(self, samples: int) -> int:
        return self.shape.steps(samples)[-1]

    def forward(self, wavs: list[Tensor], attention: bool) -> Hidden:
        return together([self._states(wav.to(self.device, torch.float32)) for wav in wavs])

    def tapped(self, wavs: list[Tensor], names: Sequence[str]) -> dict[str, list[Tensor]]:
        depths = {name: int(name.removeprefix("conv")) for name in names}
        return {
            name: [self._after(wav.to(self.device, torch.float32), depth)[0].T.float() for wav in wavs]
            for name, depth in depths.items()
        }

    def _after(self, wav: Tensor, depth: int) -> Tensor:
        """What comes out of the first `depth` blocks: (samples,) -> (1, channels, steps)."""
        if depth == 1:
            return self.bands(functional.pad(wav[None, None], (REACH, REACH), mode="reflect"))  # type: ignore[no-any-return]
        x, _ = self._first_two(wav)
        for block in self.blocks[1 : depth - 1]:
            x = block(block.padded(x))
        return x

    def _states(self, wav: Tensor) -> list[Tensor]:
        frames = self.frames(len(wav))
        x, means = self._first_two(wav)
        added = self.skips[0](means)
        for block, skip in zip(self.blocks[1:], self.skips[1:], strict=True):
            added = added + skip(_means(x, x.shape[-1] // frames)[..., :frames])
            x = block(block.padded(x))
        with torch.autocast(x.device.type, enabled=False):  # what is rounded at one frame is heard at all that follow
            last = self.out(self._recur(x[0].T.float()).T[None])
            return [x[0].T, self.norm(last + added.float())[0].T]

    def _first_two(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        """What comes out of the second block, and the means of what comes out of the first over each frame.

        The filters are symmetric, so reflecting the sound further gives what reflecting the first block's output gives.
        """
        second, total, steps = self.blocks[0], len(wav), self.shape.steps(len(wav))
        factor = total // steps[-1]
        before, after = second.margins
        wav = functional.pad(wav[None, None], (REACH + before, REACH + after), mode="reflect")
        pieces, means, rest = [], [], wav.new_zeros(1, self.shape.channels[0], 0)
        for first in range(0, steps[2], PIECE):
            last = min(first + PIECE, steps[2])
            begin, end = first * second.stride, (last - 1) * second.stride + second.kernel
            own = total if last == steps[2] else last * second.stride
            x = self.bands(wav[..., begin : max(end, own + before) + 2 * REACH])
            pieces.append(second(x[..., : end - begin]))
            rest = torch.cat([rest, x[..., before : before + own - begin]], dim=2)
            means.append(_means(rest, factor))
            rest = rest[..., means[-1].shape[2] * factor :]
        return torch.cat(pieces, dim=2), torch.cat(means, dim=2)[..., : steps[-1]]

    def _recur(self, x: Tensor) -> Tensor:
        """Each frame and the one before it make a candidate, how much of it is taken in, and how much is shown."""
        heard = torch.cat([x, functional.pad(x, (0, 0, 1, -1))], dim=1)
        candidate, taken, shown = self.gates(heard).chunk(3, dim=1)
        taken = taken.sigmoid()
        return shown.sigmoid() * _remembered(1 - taken, taken * candidate.tanh())  # type: ignore[no-any-return]


def _means(x: Tensor, factor: int) -> Tensor:
    """Means over each `factor` steps; what is left at the end belongs to none."""
    whole = x.shape[2] // factor
    return x[..., : whole * factor].reshape(*x.shape[:2], whole, factor).mean(dim=3)


def _remembered(kept: Tensor, new: Tensor) -> Tensor:
    """y[t] = kept[t] * y[t - 1] + new[t] for all frames, over twice as many of them at each turn."""
    reach = 1
    while reach < len(new):
        new = torch.cat([new[:reach], new[reach:] + kept[reach:] * new[:-reach]])
        kept = torch.cat([kept[:reach], kept[reach:] * kept[:-reach]])
        reach *= 2
    return new


class _Bands(nn.Module):
    """Learnt band-pass filters over (1, 1, samples), without padding."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # As the authors begin: bands side by side, equally wide in mel.
        lowest, highest = (2595 * math.log10(1 + edge / 700) for edge in (30, SAMPLE_RATE / 2 - LOWEST - NARROWEST))
        edges = 700 * (10 ** (torch.linspace(lowest, highest, channels + 1, dtype=torch.float64) / 2595) - 1)
        self.low = nn.Parameter(edges[:-1, None].float())
        self.band = nn.Parameter(edges.diff()[:, None].float())
        self.norm = nn.BatchNorm1d(channels)
        self.activation = nn.PReLU(channels, init=0)

    def forward(self, wav: Tensor) -> Tensor:
        with torch.autocast(wav.device.type, enabled=False):
            return self.activation(self.norm(functional.conv1d(wav, self._filters())))  # type: ignore[no-any-return]

    def _filters(self) -> Tensor:
        """Differences of two sincs under the authors' window, which is nearly Hamming's; 1 in the middle."""
        low = LOWEST + self.low.abs()
        high = (low + NARROWEST + self.band.abs()).clamp(LOWEST, SAMPLE_RATE / 2)
        time = 2 * math.pi * torch.arange(-REACH, 0, dtype=torch.float32, device=low.device) / SAMPLE_RATE
        place = torch.linspace(0, FILTER / 2 - 1, REACH, device=low.device)
        window = 0.54 - 0.46 * torch.cos(2 * math.pi * place / FILTER)
        half = ((high * time).sin() - (low * time).sin()) / (time / 2) * window / (2 * (high - low))
        return torch.cat([half, torch.ones_like(low), half.flip(1)], dim=1)[:, None]


class _Block(nn.Module):
    """A convolution without padding, its norm and a PReLU: (1, channels, steps) -> (1, channels, steps)."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.margins = margins(kernel, stride)
        self.convolution = nn.Conv1d(channels, width, kernel, stride)
        self.norm = nn.BatchNorm1d(width)
        self.activation = nn.PReLU(width, init=0)

    def padded(self, x: Tensor) -> Tensor:
        """What it hears, reflected at both ends."""
        return functional.pad(x, self.margins, mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.convolution(x).float()))  # type: ignore[no-any-return]
