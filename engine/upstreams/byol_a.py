"""BYOL for Audio (Niizumi et al. 2021): a small convolutional network over log mel energies, as nttcslab/byol-a saves it.

Three convolutions, each followed by a pooling that halves time and frequency, and two layers over what stands in one
time step. State 0 is what goes into the first of these two; the outputs of the convolutions are taps, frequency and
channels in one vector. The authors' vector for a whole clip is the mean plus the maximum of the last state over time.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from engine.checkpoint import Layout
from engine.errors import Refused
from engine.nets.clips import together
from engine.nets.spectra import EPSILON, Centred, Framing
from engine.upstream import Card, Hidden, Tap, Upstream
from engine.weights import Checkpoint

MELS, CHANNELS, POOLINGS = 64, 64, 3
STRIDE: int = 2**POOLINGS  # spectral frames in one time step
FRAMING = Framing(window=1024, hop=160, fft=1024, shape="periodic hann", centred=True)
HOP = STRIDE * FRAMING.hop
SHORTEST = (STRIDE - 1) * FRAMING.hop
MEAN, DEVIATION = -5.4919195, 5.0389895  # of log mel energies, in the authors' example
PIECE = 256 * STRIDE  # spectral frames worked on at a time: bounds the memory that a long clip needs
TAPS = tuple(Tap(f"conv{depth}", CHANNELS * MELS // 2**depth, 2**depth * FRAMING.hop) for depth in range(1, POOLINGS + 1))


class ByolA(Upstream):
    """The network, clip by clip."""

    def __init__(self, card: Card, width: int) -> None:
        super().__init__()
        self.card = card
        self.mel = Centred(MELS, framing=FRAMING, low=60, high=7800)
        layers: list[nn.Module] = []
        for depth in range(POOLINGS):
            layers += [
                nn.Conv2d(CHANNELS if depth else 1, CHANNELS, 3, padding=1),
                nn.BatchNorm2d(CHANNELS),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        self.features = nn.Sequential(*layers)
        self.fc = nn.Sequential(
            nn.Linear(TAPS[-1].dim, width), nn.ReLU(), nn.Dropout(0.3), nn.Linear(width, width), nn.ReLU()
        )

    def frames(self, samples: int) -> int:
        return FRAMING.frames(samples) // STRIDE

    def forward(self, wavs: list[Tensor], attention: bool) -> Hidden:
        return together([self._states(wav.to(self.device)) for wav in wavs])

    def tapped(self, wavs: list[Tensor], names: Sequence[str]) -> dict[str, list[Tensor]]:
        depths = {name: int(name.removeprefix("conv")) for name in names}
        return {name: [self._convolved(wav.to(self.device), depth) for wav in wavs] for name, depth in depths.items()}

    def _states(self, wav: Tensor) -> list[Tensor]:
        steps = self._convolved(wav, POOLINGS)
        middle: Tensor = self.fc[:2](steps)
        return [steps, middle, self.fc[2:](middle)]

    def _convolved(self, wav: Tensor, depth: int) -> Tensor:
        """What comes out of the first `depth` convolutions, as (time steps, frequency * channels)."""
        with torch.autocast(wav.device.type, enabled=False):  # bfloat16 is too coarse for what comes after these norms
            spectrum = ((self.mel(wav) + EPSILON).log() - MEAN) / DEVIATION
            stride, total = 2**depth, len(spectrum) // 2**depth
            pieces = []
            # One time step hears less than another one on each side, so pieces with a step more on both sides are exact.
            for first in range(0, total, PIECE // stride):
                last = min(first + PIECE // stride, total)
                begin, end = max(0, first * stride - STRIDE), last * stride + STRIDE
                maps = self.features[: 4 * depth](spectrum[begin:end].T[None, None])[0]  # (channels, frequency, time)
                steps = maps.permute(2, 1, 0).flatten(1)
                pieces.append(steps[first - begin // stride :][: last - first])
            return torch.cat(pieces)


def recognises(checkpoint: Checkpoint) -> bool:
    """Three convolutions with norms, then two layers of another kind, under the authors' names."""
    before = _before(checkpoint)
    first = checkpoint.tensors.get(f"{before}features.0.weight")
    others = {f"{before}{name}" for name in ("features.9.running_mean", "fc.0.weight", "fc.3.weight")}
    return first is not None and first.shape == (CHANNELS, 1, 3, 3) and others <= checkpoint.tensors.keys()


def _before(checkpoint: Checkpoint) -> str:
    """What stands before the encoder's own names where a whole trainer was saved."""
    first = "features.0.weight"
    return next((name.removesuffix(first) for name in checkpoint.tensors if name.endswith(first)), "")


def describe(checkpoint: Checkpoint) -> Card:
    """The card of a file."""
    shape = tuple(checkpoint.tensors[f"{_before(checkpoint)}fc.0.weight"].shape)
    if len(shape) != 2 or shape[1] != TAPS[-1].dim:
        raise Refused(
            f"'{checkpoint.file}' holds a BYOL-A network whose first layer after the convolutions has the shape {shape}; "
            f"one for {MELS} mel bands takes {TAPS[-1].dim} inputs."
        )
    return _card("", shape[0])


def _card(name: str, width: int, **known: str | int) -> Card:
    convolutions = sum(9 * (CHANNELS if depth else 1) * CHANNELS + 3 * CHANNELS for depth in range(POOLINGS))
    return Card(
        name=name,
        family="BYOL-A",
        layers=2,
        dims=(TAPS[-1].dim, width, width),
        hop=HOP,
        shortest=SHORTEST,
        taps=TAPS,
        about="BYOL-A: a convolutional network for sound of every kind; state 0 comes out of its convolutions.",
        paper="Niizumi et al. 2021, arXiv:2103.06695",
        parameters=convolutions + (TAPS[-1].dim + 1) * width + (width + 1) * width,
        **known,  # type: ignore[arg-type]
    )


def build(card: Card, checkpoint: Checkpoint) -> Upstream:
    """The network."""
    return ByolA(card, card.dims[-1])


def weights(checkpoint: Checkpoint) -> tuple[Mapping[str, Tensor], Sequence[str]]:
    """The encoder; whatever else a trainer saved is left out."""
    held = checkpoint.under(before := _before(checkpoint))
    given = {name: tensor for name, tensor in held.items() if name.startswith(("features.", "fc."))}
    return given, sorted(checkpoint.tensors.keys() - {before + name for name in given})


LAYOUT = Layout(
    name="BYOL-A, as nttcslab/byol-a saves it",
    prefix="author",
    recognises=recognises,
    describe=describe,
    build=build,
    weights=weights,
    published=tuple(
        _card(
            f"author:byol_a_{width}",
            width,
            source=f"https://github.com/nttcslab/byol-a/raw/master/pretrained_weights/AudioNTT2020-BYOLA-64x96d{width}.pth",
            license="NTT, for evaluation only",
            data="AudioSet",
        )
        for width in (512, 1024, 2048)
    ),
)
