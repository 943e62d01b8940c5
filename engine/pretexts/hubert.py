"""HuBERT: the clusters of hidden frames are guessed, then those of what was learnt from that (Hsu et al., TASLP 2021)."""

from typing import ClassVar

from engine.nets.contextual import Contextual
from engine.objectives.clustered import Clustered, Guessing
from engine.pretext import Before, Objective


class Hubert(Clustered):
    """Hides runs of frames from a Transformer and has it guess to which cluster the sound there belongs.

    In the first round these are clusters of cepstra, which k-means finds; in later rounds clusters of a layer of the network
    that the round before has trained, which know more of speech. How much they know of phones is reported each time, where
    the corpus has phones. Sizes and rates are those of the base model; a small network, or one on features, is quicker.
    """

    paper: ClassVar[str] = "Hsu et al. 2021, arXiv:2106.07447"

    def objective(self, network: Contextual, before: Before) -> Objective:  # type: ignore[override]
        return Guessing(self, network, before)

    @classmethod
    def title(cls) -> str:
        return "HuBERT"
