"""Masked predictive coding: BERT's recipe for filterbanks (Jiang, Lei, Li, Luo, Hu, Zou, Li 2019)."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from engine.nets.masking import alter_each
from engine.nets.spectral_encoder import SpectralEncoder
from engine.objectives.networks import OnFeatures
from engine.objectives.reconstruction import Reconstruction
from engine.pretext import Before, Objective
from engine.training.plan import Training
from engine.upstream import Upstream


class Mpc(OnFeatures):
    """Hides chunks of mel energies from the Transformer of a speech recogniser and has it guess them.

    A chunk is as many frames as are stacked into one, so that none can be guessed from its nearest neighbours alone. 15 % of
    the chunks are chosen anew at every step; of each by itself a die decides: eight times in ten it is zero, once in ten
    another chunk of the clip, once in ten it is left as it is. The loss is the mean absolute error on them, and
    nothing but a linear layer stands between the last block and the guess.
    """

    paper: ClassVar[str] = "Jiang et al. 2019, arXiv:1910.09932"

    steps: int = Training.again("steps", 500_000)
    features: str = OnFeatures.again("features", "mel")
    reduce: int = OnFeatures.again("reduce", 4)
    blocks: int = OnFeatures.again("blocks", 12)
    width: int = OnFeatures.again("width", 512)
    heads: int = OnFeatures.again("heads", 8)
    inner: int = OnFeatures.again("inner", 1280)
    share: float = Field(0.15, gt=0, le=0.9, description="Share of the chunks that are chosen.")

    def objective(self, network: Upstream, before: Before) -> Objective:
        assert isinstance(network, SpectralEncoder)
        return Chunks(network, self.share)

    @classmethod
    def title(cls) -> str:
        return "Masked predictive coding"


class Chunks(Reconstruction):
    """Chunks are hidden one by one."""

    def __init__(self, network: SpectralEncoder, share: float) -> None:
        super().__init__(network, nn.Linear(network.width, network.channels))
        self.share = share

    def hidden(self, frames: int, generator: torch.Generator) -> Tensor:
        hidden = torch.zeros(frames, dtype=torch.bool)
        hidden[torch.randperm(frames, generator=generator)[: max(1, round(frames * self.share))]] = True
        return hidden

    def altered(self, clip: Tensor, hidden: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return alter_each(clip, hidden, generator), hidden[:, None]
