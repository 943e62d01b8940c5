"""The encoder of the Descript Audio Codec (Kumar et al. 2023, arXiv:2306.06546), before and after its quantizer.

There is no block that looks beyond a convolution: state 0, the only one, holds the latents that are quantized. A clip is
brought to whole frames with silence. It goes through alone, a long one in pieces with so much sound around them that the
numbers are those of the whole.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.nets.clips import together
from engine.nets.describing import describing
from engine.nets.resampling import Resampling
from engine.nets.seanet import PIECE_SAMPLES
from engine.nets.windows import stitched
from engine.upstream import Card, Hidden, Tap, Upstream
from engine.weights import renamed

DILATIONS = (1, 3, 9)
KERNEL = 7


@dataclass(frozen=True)
class Shape:
    """What tells one DAC from another."""

    filters: int
    strides: tuple[int, ...]
    rate: int
    codebooks: int
    entries: int
    depth: int  # width of the codebooks

    @property
    def width(self) -> int:
        """Of the latents."""
        return self.filters << len(self.strides)

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        hop: int = math.prod(self.strides)
        return hop

    @property
    def context(self) -> int:
        """Samples on either side beyond which nothing is heard, in whole frames."""
        samples, hop = KERNEL - 1, 1
        for stride in self.strides:
            samples += ((KERNEL - 1) * sum(DILATIONS) + 2 * stride - 1) * hop
            hop *= stride
        return -(-(samples + 2 * hop) // hop) * hop

    @property
    def taps(self) -> tuple[Tap, ...]:
        """What comes out of each convolution that steps down, and the codes."""
        steps = (
            Tap(f"conv{depth}", self.filters * 2**depth, math.prod(self.strides[:depth]))
            for depth in range(1, len(self.strides) + 1)
        )
        return (*steps, Tap("codes", self.codebooks, self.hop, codes=True, entries=self.entries))


def read_shape(config: Mapping[str, Any], where: str) -> Shape:
    """The architecture that a configuration describes; what it leaves out has the defaults of transformers."""
    with describing(where):
        shape = Shape(
            filters=int(config.get("encoder_hidden_size", 64)),
            strides=tuple(int(stride) for stride in config.get("downsampling_ratios") or (2, 4, 8, 8)),
            rate=int(config.get("sampling_rate", 16_000)),
            codebooks=int(config.get("n_codebooks", 9)),
            entries=int(config.get("codebook_size", 1024)),
            depth=int(config.get("codebook_dim", 8)),
        )
        if min(*shape.strides, shape.filters) < 1:
            raise ValueError("every size of a network is at least 1")
    return shape


def describe(config: Mapping[str, Any], preprocessor: Mapping[str, Any], where: str) -> Card:
    """What the configuration says of the encoder."""
    shape = read_shape(config, where)
    return Card(
        name="",
        family="",
        layers=0,
        dims=(shape.width,),
        hop=shape.hop,
        shortest=1,
        sample_rate=shape.rate,
        taps=shape.taps,
        about="Its only state is what is quantized.",
    )


def build(card: Card, config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> Upstream:
    """The encoder as it is before it has learnt anything."""
    return Dac(card, read_shape(config, card.name))


NAMES = [
    (r"^encoder\.conv1\.", "encoder.first."),
    (r"^encoder\.snake1\.alpha$", "encoder.snake.alpha"),
    (r"^encoder\.conv2\.", "encoder.last."),
    (r"^encoder\.block\.(\d+)\.res_unit1\.", r"encoder.steps.\1.units.0."),
    (r"^encoder\.block\.(\d+)\.res_unit2\.", r"encoder.steps.\1.units.1."),
    (r"^encoder\.block\.(\d+)\.res_unit3\.", r"encoder.steps.\1.units.2."),
    (r"^encoder\.block\.(\d+)\.snake1\.", r"encoder.steps.\1.snake."),
    (r"^encoder\.block\.(\d+)\.conv1\.", r"encoder.steps.\1.down."),
    (r"^quantizer\.quantizers\.", "codebooks."),
]


def weights(held: Mapping[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Tensor], Sequence[str]]:
    """The weights of the encoder and the codebooks under our names; the decoder is left out."""
    given = {name: tensor for name, tensor in held.items() if name.startswith(("encoder.", "quantizer."))}
    return renamed(given, NAMES), sorted(held.keys() - given.keys())


class Snake(nn.Module):
    """x + sin(alpha x) squared / alpha, with an alpha for each channel (Ziyin et al. 2020)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.alpha * x).sin().square() / (self.alpha + 1e-9)


class Unit(nn.Module):
    """A wide convolution and a narrow one, added to their input."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.snake1 = Snake(width)
        self.conv1 = nn.Conv1d(width, width, KERNEL, dilation=dilation, padding=(KERNEL - 1) * dilation // 2)
        self.snake2 = Snake(width)
        self.conv2 = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.conv2(self.snake2(self.conv1(self.snake1(x))))
        return x + added


class Step(nn.Module):
    """Three units and a convolution that steps down to twice the channels."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.units = nn.ModuleList(Unit(width, dilation) for dilation in DILATIONS)
        self.snake = Snake(width)
        self.down = nn.Conv1d(width, 2 * width, 2 * stride, stride, padding=-(-stride // 2))

    def forward(self, x: Tensor) -> Tensor:
        for unit in self.units:
            x = unit(x)
        down: Tensor = self.down(self.snake(x))
        return down


class Encoder(nn.Module):
    """All convolutions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, shape.filters, KERNEL, padding=KERNEL // 2)
        self.steps = nn.ModuleList(Step(shape.filters * 2**depth, stride) for depth, stride in enumerate(shape.strides))
        self.snake = Snake(shape.width)
        self.last = nn.Conv1d(shape.width, shape.width, 3, padding=1)

    def forward(self, wav: Tensor, depth: int | None) -> Tensor:
        """(samples,), whole frames of them -> (frames, channels) after `depth` steps down, or what is quantized."""
        with torch.autocast(wav.device.type, enabled=False):  # sines of large numbers need every bit of them
            x: Tensor = self.first(wav[None, None])
            for step in self.steps[:depth]:
                x = step(x)
            if depth is None:
                x = self.last(self.snake(x))
        return x[0].T


class Codebook(nn.Module):
    """Entries that are compared by direction, in few dimensions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.in_proj = nn.Conv1d(shape.width, shape.depth, 1)
        self.out_proj = nn.Conv1d(shape.depth, shape.width, 1)
        self.codebook = nn.Embedding(shape.entries, shape.depth)

    def forward(self, left: Tensor) -> tuple[Tensor, Tensor]:
        """What is left over, (1, width, frames) -> the entry of each frame, and what is left over after it."""
        narrow = functional.normalize(self.in_proj(left)[0].T)
        entries = functional.normalize(self.codebook.weight)
        nearest = (2 * narrow @ entries.T - entries.square().sum(dim=1)).argmax(dim=1)
        return nearest, left - self.out_proj(self.codebook(nearest).T[None])


class Dac(Upstream):
    """The encoder, clip by clip."""

    def __init__(self, card: Card, shape: Shape) -> None:
        super().__init__()
        self.card = card
        self.shape = shape
        with torch.device("cpu"):  # the network may lie on the meta device; what is computed from nothing does not
            self.resampling = Resampling(shape.rate)
        self.encoder = Encoder(shape)
        self.codebooks = nn.ModuleList(Codebook(shape) for _ in range(shape.codebooks))

    def frames(self, samples: int) -> int:
        return -(-self.resampling.samples(samples) // self.shape.hop)

    def forward(self, wavs: list[Tensor], attention: bool) -> Hidden:
        return together([[self._heard(wav)] for wav in wavs])

    def tapped(self, wavs: list[Tensor], names: Sequence[str]) -> dict[str, list[Tensor]]:
        found = {}
        for name in names:
            if name == "codes":
                found[name] = [self._codes(self._heard(wav)) for wav in wavs]
            else:
                found[name] = [self._heard(wav, int(name.removeprefix("conv"))) for wav in wavs]
        return found

    def _heard(self, wav: Tensor, depth: int | None = None) -> Tensor:
        sound: Tensor = self.resampling(wav.to(self.device, torch.float32))
        hop, context = self.shape.hop, self.shape.context
        sound = functional.pad(sound, (0, -sound.numel() % hop))
        window = -(-PIECE_SAMPLES // hop) * hop + 2 * context
        each = hop if depth is None else math.prod(self.shape.strides[:depth])
        return stitched(sound, window, 2 * context, each, lambda piece: [self.encoder(piece, depth)])[0]

    def _codes(self, latents: Tensor) -> Tensor:
        with torch.autocast(latents.device.type, enabled=False):
            left, codes = latents.T[None], []
            for codebook in self.codebooks:
                nearest, left = codebook(left)
                codes.append(nearest)
        return torch.stack(codes, dim=1)
