"""Mockingjay: hidden frames are reconstructed from both sides (Liu, Yang, Chi, Hsu, Lee, ICASSP 2020)."""

from typing import ClassVar

from pydantic import Field

from engine.nets.spectral_encoder import SpectralEncoder
from engine.objectives.networks import OnFeatures
from engine.objectives.reconstruction import InRuns
from engine.pretext import Before, Objective
from engine.training.plan import Training
from engine.upstream import Upstream


class Mockingjay(OnFeatures):
    """Hides stretches of the features from a Transformer and has it guess them; what it learns on the way is the upstream.

    In each clip 15 % of the frames are hidden: eight times in ten they are zero, once in ten other frames of the clip, once
    in ten left as they are. The loss is the mean absolute error on them. Sizes and rates are those of the base model.
    """

    paper: ClassVar[str] = "Liu et al. 2020, arXiv:1910.12638"

    steps: int = Training.again("steps", 1_000_000)
    rate: float = Training.again("rate", 2e-4)
    share: float = Field(0.15, gt=0, le=0.9, description="Share of the frames that are hidden.")
    span: int = Field(7, ge=1, le=100, description="Frames hidden in a row.")

    def objective(self, network: Upstream, before: Before) -> Objective:
        assert isinstance(network, SpectralEncoder)
        return InRuns(network, self.share, self.span)
