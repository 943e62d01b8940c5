"""Phase prediction: how fast the phase turns is guessed from the powers alone (Quitry, Tagliasacchi, Roblek 2019)."""

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from engine.nets.spectra import Framing
from engine.nets.spectral_encoder import Shape, SpectralEncoder
from engine.objectives.networks import Blocks
from engine.pretext import Batch, Before, Objective
from engine.training.optimizers import Optimizer
from engine.training.plan import Loss, Training
from engine.upstream import Upstream

FRAMING = Framing(fft=400, shape="periodic hann", centred=True)  # that of the features


class PhasePrediction(Blocks):
    """Hears the powers of a spectrum and has to tell what they leave out: how the phase moves on from frame to frame.

    In each frequency bin the phase turns by the bin's own frequency and a little more or less, as the partial that sounds
    there lies a little higher or lower: its instantaneous frequency. The network guesses this angle as a direction. The loss
    is one minus the cosine of the angle between guess and truth; what is louder counts more. Nothing is hidden.
    """

    paper: ClassVar[str] = "Quitry et al. 2019, arXiv:1910.11910"

    optimizer: Optimizer = Training.again("optimizer", "Adam")
    decay: float = Training.again("decay", 0.0)
    width: int = Blocks.again("width", 256)
    heads: int = Blocks.again("heads", 4)
    inner: int = Blocks.again("inner", 1024)
    reduce: int = Field(1, ge=1, le=10, description="Frames that are stacked into one, which makes the network quicker.")

    def network(self) -> SpectralEncoder:
        shape = Shape("linear", self.reduce, self.width, self.blocks, self.heads, self.inner, self.dropout)
        return SpectralEncoder(self.card(shape.dims, shape.hop, shape.shortest, attention=True), shape)

    def objective(self, network: Upstream, before: Before) -> Objective:
        assert isinstance(network, SpectralEncoder)
        return Turns(network)


class Turns(Objective):
    """One minus the cosine of the error of each guessed angle, weighed by magnitude."""

    def __init__(self, network: SpectralEncoder) -> None:
        super().__init__()
        self.network = network
        self.head = nn.Linear(network.width, 2 * network.channels)

    def prepare(self, wave: Tensor) -> tuple[Tensor, ...]:
        reduce = self.network.shape.reduce
        angle, weight = turns(wave)
        frames = len(angle) // reduce
        local = self.network.local([wave])[0]
        return (local, *(each[: frames * reduce].reshape(frames, -1) for each in (angle, weight)))

    def forward(self, batch: Batch) -> Loss:
        clips = batch.part()
        states = self.network.contextual(self.network.projected(torch.cat(clips)), [len(clip) for clip in clips])
        guess = self.head(states[-1]).view(len(states[-1]), 2, -1).float()
        angle, weight = torch.cat(batch.part(1)), torch.cat(batch.part(2))
        near = (guess * torch.stack([angle.cos(), angle.sin()], dim=1)).sum(1) / guess.norm(dim=1).clamp(min=1e-6)
        return Loss((weight * (1 - near)).sum(), max(1e-6, float(weight.sum())))


def turns(wave: Tensor) -> tuple[Tensor, Tensor]:
    """How much further than its bin's frequency says each phase has turned since the frame before, and what it weighs.

    Both (frames, bins); angles in -pi ... pi. The weight is the root of the mean of both magnitudes over the clip's, and
    zero in the first frame, which has none before it.
    """
    spectrum = torch.fft.rfft(FRAMING.cut(wave) * FRAMING.weights())
    expected = 2 * math.pi * FRAMING.hop / FRAMING.fft * torch.arange(spectrum.shape[1])
    moved = spectrum[1:] * spectrum[:-1].conj() * torch.polar(torch.ones_like(expected), -expected)
    angle = torch.zeros(spectrum.shape).index_copy(0, torch.arange(1, len(spectrum)), moved.angle())
    weight = torch.zeros(spectrum.shape).index_copy(0, torch.arange(1, len(spectrum)), moved.abs().sqrt().sqrt())
    return angle, weight / weight.mean().clamp(min=1e-6)
