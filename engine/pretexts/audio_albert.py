"""AudioALBERT: Mockingjay with one block that is run again and again (Chi, Chung, Wu, Hsieh, Chen, Li, Lee, SLT 2021)."""

from typing import ClassVar

from pydantic import Field

from engine.nets.spectral_encoder import SpectralEncoder
from engine.objectives.networks import OnFeatures
from engine.objectives.reconstruction import InRuns
from engine.pretext import Before, Objective
from engine.training.plan import Training
from engine.upstream import Upstream


class AudioAlbert(OnFeatures):
    """Hides stretches of mel energies from a Transformer and has it guess them. All its blocks are one and the same block.

    With three blocks that makes the network a third as large, and no quicker. In each clip 15 % of the frames are hidden:
    eight times in ten they are zero, once in ten frames from elsewhere, once in ten left as they are. The loss is the mean
    absolute error on them.
    """

    paper: ClassVar[str] = "Chi et al. 2021, arXiv:2005.08575"
    shared: ClassVar[bool] = True

    steps: int = Training.again("steps", 1_000_000)
    rate: float = Training.again("rate", 2e-4)
    features: str = OnFeatures.again("features", "mel")
    share: float = Field(0.15, gt=0, le=0.9, description="Share of the frames that are hidden.")
    span: int = Field(7, ge=1, le=100, description="Frames hidden in a row.")

    def objective(self, network: Upstream, before: Before) -> Objective:
        assert isinstance(network, SpectralEncoder)
        return InRuns(network, self.share, self.span, in_a_row=True)

    @classmethod
    def title(cls) -> str:
        return "AudioALBERT"
