"""Audio2Vec: slices of sound as the words of word2vec (Tagliasacchi, Gfeller, Quitry, Roblek 2019)."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from engine.nets.spectral_encoder import SpectralEncoder
from engine.objectives.networks import OnFeatures
from engine.pretext import Batch, Before, Objective
from engine.training.optimizers import Optimizer, Schedule
from engine.training.plan import Loss, Training
from engine.upstream import Upstream


class Audio2vec(OnFeatures):
    """Cuts mel energies into slices of a quarter second; each is guessed from its neighbours, or its neighbours from it.

    A slice becomes one vector, the mean of the states of its frames. As a skip-gram, the vector of a slice has to tell what
    the slices before and after it are; as a bag (CBoW), the vectors around a slice have to tell what it is. The loss is the
    mean squared error. No frame is seen together with one of another slice, so the upstream too hears no further than that.
    """

    paper: ClassVar[str] = "Tagliasacchi et al. 2019, arXiv:1905.11796"

    optimizer: Optimizer = Training.again("optimizer", "Adam")
    decay: float = Training.again("decay", 0.0)
    schedule: Schedule = Training.again("schedule", "steady")
    rate: float = Training.again("rate", 1e-3)
    features: str = OnFeatures.again("features", "mel")
    width: int = OnFeatures.again("width", 128)
    heads: int = OnFeatures.again("heads", 4)
    inner: int = OnFeatures.again("inner", 512)
    way: Literal["skip-gram", "CBoW"] = Field(
        "skip-gram", description="A slice tells its neighbours, or its neighbours tell it."
    )
    span: int = Field(24, ge=1, le=1000, description="Frames of a slice.")
    neighbours: int = Field(2, ge=1, le=10, description="Slices on each side.")

    def network(self) -> SpectralEncoder:
        network = super().network()
        network.longest = self.span
        network.card = self.card(network.card.dims, network.card.hop, network.card.shortest)
        return network

    def objective(self, network: Upstream, before: Before) -> Objective:
        assert isinstance(network, SpectralEncoder)
        return Neighbours(network, self.way == "skip-gram", self.span, self.neighbours)

    @classmethod
    def title(cls) -> str:
        return "Audio2Vec"


class Neighbours(Objective):
    """Mean squared error of slices that are guessed from the vectors of others."""

    def __init__(self, network: SpectralEncoder, outwards: bool, span: int, neighbours: int) -> None:
        super().__init__()
        self.network, self.outwards, self.span = network, outwards, span
        self.apart = [*range(-neighbours, 0), *range(1, neighbours + 1)]
        given, guessed = (1, len(self.apart)) if outwards else (len(self.apart), 1)
        self.decoder = nn.Linear(given * network.width, guessed * span * network.channels)

    def prepare(self, wave: Tensor) -> tuple[Tensor, ...]:
        local = self.network.local([wave])[0]
        # A clip that is shorter than two slices goes on with its mean, which is zero.
        return (functional.pad(local, (0, 0, 0, max(0, 2 * self.span - len(local)))),)

    def forward(self, batch: Batch) -> Loss:
        cut = [self.cut(clip, draw) for clip, draw in zip(batch.part(), batch.generators(), strict=True)]
        slices = torch.cat(cut)  # (slices, span, channels)
        x = self.network.projected(slices.flatten(0, 1))
        states = self.network.contextual(x, [self.span] * len(slices))[-1]
        vectors = states.view(len(slices), self.span, -1).mean(dim=1)
        at, there = self.pairs([len(each) for each in cut])
        at, there = at.to(vectors.device), there.to(vectors.device)
        if self.outwards:
            guess = self.decoder(vectors).view(len(slices), len(self.apart), -1)[there]
            target = slices.flatten(1)[at[there]]
        else:
            around = (vectors[at] * there[:, :, None]).flatten(1)
            guess, target = self.decoder(around), slices.flatten(1)
        return Loss.mean(functional.mse_loss(guess, target, reduction="none"))

    def cut(self, clip: Tensor, generator: torch.Generator) -> Tensor:
        """(frames, channels) -> (slices, span, channels), from anywhere in the clip."""
        count = len(clip) // self.span
        start = int(torch.randint(len(clip) - count * self.span + 1, (), generator=generator))
        return clip[start : start + count * self.span].view(count, self.span, -1)

    def pairs(self, counts: list[int]) -> tuple[Tensor, Tensor]:
        """For each slice of clips with so many: the number of each neighbour, and whether there is one (slices, apart)."""
        place = torch.cat([torch.arange(count) for count in counts])[:, None] + torch.tensor(self.apart)
        last = torch.repeat_interleave(torch.tensor(counts), torch.tensor(counts))[:, None]
        there = (place >= 0) & (place < last)
        at = torch.arange(sum(counts))[:, None] + torch.tensor(self.apart)
        return at.where(there, 0), there
