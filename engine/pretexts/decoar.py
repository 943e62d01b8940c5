"""DeCoAR: a slice of speech is reconstructed from what lies on both sides of it (Ling et al., ICASSP 2020)."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from engine.nets.decoar import FRAMING, MELS, Decoar
from engine.pretext import Batch, Before, Objective, Pretext
from engine.training.optimizers import Optimizer
from engine.training.plan import Loss, Training
from engine.upstream import Upstream


class DecoarPretext(Pretext):
    """Reads mel energies with two stacks of LSTMs, one in each direction, and has them guess the slices between them.

    The forward stack has heard all up to the first frame of a slice, the backward stack all from its last frame on. From
    both together every frame of the slice is guessed, each place in it by a small network of its own. The loss is the mean
    absolute error. At each frame the upstream gives what both stacks say, side by side.
    """

    paper: ClassVar[str] = "Ling et al. 2020, arXiv:1912.01679"

    optimizer: Optimizer = Training.again("optimizer", "Adam")
    decay: float = Training.again("decay", 0.0)
    layers: int = Field(4, ge=1, le=16, description="LSTM layers in each direction.")
    width: int = Field(1024, ge=8, le=4096, description="Cells of a layer in each direction.")
    span: int = Field(18, ge=1, le=200, description="Frames from the first to the last of a slice.")
    inner: int = Field(
        512, ge=8, le=4096, description="Size of the networks that guess.", json_schema_extra={"advanced": True}
    )

    def network(self) -> Decoar:
        dims = (self.width, *(2 * self.width for _ in range(self.layers)))
        return Decoar(self.card(dims, FRAMING.hop, FRAMING.shortest), self.width, self.layers)

    def objective(self, network: Upstream, before: Before) -> Objective:
        assert isinstance(network, Decoar)
        return Slices(network, self.width, self.span, self.inner)

    @classmethod
    def title(cls) -> str:
        return "DeCoAR"


class Slices(Objective):
    """Mean absolute error on every frame of every slice."""

    def __init__(self, network: Decoar, width: int, span: int, inner: int) -> None:
        super().__init__()
        self.network, self.span = network, span
        self.first = nn.Linear(2 * width, (span + 1) * inner)  # of all places at once
        self.second = nn.Parameter(torch.empty(span + 1, inner, MELS))
        self.bias = nn.Parameter(torch.zeros(span + 1, MELS))
        nn.init.uniform_(self.second, -(inner**-0.5), inner**-0.5)

    def prepare(self, wave: Tensor) -> tuple[Tensor, ...]:
        spectrum = self.network.spectrum(wave)
        # A clip that is shorter than a slice goes on with its mean, which is zero.
        return (functional.pad(spectrum, (0, 0, 0, max(0, self.span + 1 - len(spectrum)))),)

    def forward(self, batch: Batch) -> Loss:
        clips = batch.part()
        sides = self.network.sides(clips)
        around = torch.cat([torch.cat([ahead[: -self.span], back[self.span :]], dim=1) for ahead, back in sides])
        guess = self.guess(around)
        # Slice t is made of frames t ... t + span.
        slices = torch.cat([clip.unfold(0, self.span + 1, 1).mT for clip in clips])
        return Loss.mean(functional.l1_loss(guess, slices, reduction="none"))

    def guess(self, around: Tensor) -> Tensor:
        """(slices, 2 * width) -> (slices, span + 1, mels)."""
        within = functional.relu(self.first(around)).view(len(around), self.span + 1, -1)
        return torch.einsum("sph,phm->spm", within, self.second) + self.bias
