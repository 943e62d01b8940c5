"""SpecAugment's masks as a pretext, as S3PRL has it; the masks are from Park et al. 2019, arXiv:1904.08779."""

from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from engine.nets.masking import stretch
from engine.nets.spectral_encoder import SpectralEncoder
from engine.objectives.networks import OnFeatures
from engine.objectives.reconstruction import Reconstruction
from engine.pretext import Before, Objective
from engine.training.plan import Training
from engine.upstream import Upstream


class SpecAugment(OnFeatures):
    """Blots out a few long stretches and bands of mel energies and has a Transformer paint them in.

    Each stretch of time is of any length up to 100 frames, each band of any width up to 9 channels; both become zero. The
    loss is the mean absolute error on them. Nothing is exchanged or left as it is, unlike in Mockingjay and TERA.
    """

    paper: ClassVar[str] = "Masks of Park et al. 2019, arXiv:1904.08779"

    steps: int = Training.again("steps", 1_000_000)
    rate: float = Training.again("rate", 2e-4)
    features: str = OnFeatures.again("features", "mel")
    stretches: int = Field(2, ge=0, le=20, description="Stretches of time that are hidden in a clip.")
    longest: int = Field(100, ge=1, le=1000, description="Frames of the longest of them.")
    most: float = Field(
        1.0,
        gt=0,
        le=1,
        description="No stretch is longer than this share of its clip.",
        json_schema_extra={"advanced": True},
    )
    bands: int = Field(2, ge=0, le=20, description="Bands that are hidden in a clip.")
    widest: int = Field(9, ge=1, le=512, description="Channels of the widest of them.")

    @model_validator(mode="after")
    def _something_is_hidden(self) -> Self:
        if not (self.stretches or self.bands):
            raise ValueError("nothing is hidden: there are neither stretches nor bands")
        return self

    def objective(self, network: Upstream, before: Before) -> Objective:
        assert isinstance(network, SpectralEncoder)
        return Blots(network, self)

    @classmethod
    def title(cls) -> str:
        return "SpecAugment"


class Blots(Reconstruction):
    """Stretches and bands of zeros."""

    def __init__(self, network: SpectralEncoder, spec: SpecAugment) -> None:
        super().__init__(network)
        self.spec = spec
        self.bands = network.channels // network.shape.reduce  # stacked frames lose the same bands

    def hidden(self, frames: int, generator: torch.Generator) -> Tensor:
        hidden = torch.zeros(frames, dtype=torch.bool)
        for _ in range(self.spec.stretches):
            hidden[stretch(frames, min(self.spec.longest, int(frames * self.spec.most)), generator)] = True
        return hidden

    def altered(self, clip: Tensor, hidden: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        counted = hidden[:, None].repeat(1, clip.shape[1])
        for _ in range(self.spec.bands):
            band = stretch(self.bands, self.spec.widest, generator)
            counted.view(len(clip), -1, self.bands)[:, :, band] = True
        return clip.masked_fill(counted, 0), counted
