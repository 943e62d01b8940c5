"""VQ-APC: a frame to come is told from a few words (Chung, Tang, Glass, Interspeech 2020)."""

from typing import ClassVar

from pydantic import Field

from engine.nets.apc import APC
from engine.objectives.autoregression import Prediction, Recurrent
from engine.pretext import Before, Objective
from engine.upstream import Upstream


class VqApc(Recurrent):
    """APC whose last layer has to say with one word of a learnt codebook what it knows of a frame to come.

    A word is one of 512; which one, a linear layer says, with noise while learning (Gumbel softmax). So the network keeps
    what helps most, and the words come to follow phones. The states are those before the codebook; the words are there as
    the tap `codes`. Their perplexity says how many of them are in use.
    """

    paper: ClassVar[str] = "Chung et al. 2020, arXiv:2005.08392"

    codebook: int = Field(512, ge=2, le=65_536, description="Entries of the codebook.")
    temperature: float = Field(
        0.5,
        gt=0,
        le=10,
        description="How softly entries are chosen where gradients are concerned.",
        json_schema_extra={"advanced": True},
    )

    @classmethod
    def title(cls) -> str:
        return "VQ-APC"

    def entries(self) -> tuple[int, ...]:
        return (self.codebook,)

    def objective(self, network: Upstream, before: Before) -> Objective:
        assert isinstance(network, APC)
        return Prediction(network, self.ahead, self.temperature)
