"""TERA: what is guessed was altered in time, in frequency and in magnitude (Liu, Li, Lee, TASLP 2021)."""

from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from engine.nets.masking import alter, spans, stretch
from engine.nets.spectral_encoder import SpectralEncoder
from engine.objectives.networks import OnFeatures
from engine.objectives.reconstruction import Reconstruction
from engine.pretext import Before, Objective
from engine.training.plan import Training
from engine.upstream import Upstream


class Tera(OnFeatures):
    """Alters mel energies in up to three ways and has a Transformer undo it; what it learns on the way is the upstream.

    In time, 15 % of the frames are hidden in runs: eight times in ten they are zero, once in ten frames from elsewhere in
    the clip, once in ten left as they are. In frequency, a band of channels is zero throughout a clip; its width is drawn
    from nothing to a fifth of them. In magnitude, noise is added to a share of the clips; by default to none. The loss is
    the mean absolute error on the hidden frames and in the band; with noise alone it is that on everything.
    """

    paper: ClassVar[str] = "Liu et al. 2021, arXiv:2007.06028"

    steps: int = Training.again("steps", 1_000_000)
    rate: float = Training.again("rate", 2e-4)
    features: str = OnFeatures.again("features", "mel")
    share: float = Field(0.15, ge=0, le=0.9, description="Share of the frames that are hidden; 0 = none.")
    span: int = Field(7, ge=1, le=100, description="Frames hidden in a row.")
    band: float = Field(0.2, ge=0, le=0.9, description="Widest hidden band, as a share of the channels; 0 = none.")
    noise: float = Field(0.0, ge=0, le=1, description="Share of the clips that noise is added to; 0 = none.")
    loudness: float = Field(
        0.2, gt=0, le=10, description="Standard deviation of the noise.", json_schema_extra={"advanced": True}
    )

    @model_validator(mode="after")
    def _something_is_altered(self) -> Self:
        if not (self.share or self.band or self.noise):
            raise ValueError("nothing is altered: the shares of hidden frames, channels and noisy clips are all 0")
        return self

    def objective(self, network: Upstream, before: Before) -> Objective:
        assert isinstance(network, SpectralEncoder)
        return Altered(network, self)

    @classmethod
    def title(cls) -> str:
        return "TERA"


class Altered(Reconstruction):
    """Each clip is altered in time, in frequency and in magnitude, as far as the settings say."""

    def __init__(self, network: SpectralEncoder, spec: Tera) -> None:
        super().__init__(network)
        self.spec = spec
        self.bands = network.channels // network.shape.reduce  # stacked frames lose the same band
        self.widest = int(self.bands * spec.band)

    def hidden(self, frames: int, generator: torch.Generator) -> Tensor:
        if not self.spec.share:
            return torch.zeros(frames, dtype=torch.bool)
        return spans(frames, self.spec.share, self.spec.span, generator)

    def altered(self, clip: Tensor, hidden: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        seen = alter(clip, hidden, generator, in_a_row=True)
        counted = hidden[:, None].repeat(1, clip.shape[1])
        band = stretch(self.bands, self.widest, generator)
        seen.view(len(clip), -1, self.bands)[:, :, band] = 0
        counted.view(len(clip), -1, self.bands)[:, :, band] = True
        if float(torch.rand((), generator=generator)) < self.spec.noise:
            seen += self.spec.loudness * torch.randn(clip.shape, generator=generator).to(clip.device)
        if not self.spec.share and not self.widest:
            counted[:] = True
        return seen, counted
