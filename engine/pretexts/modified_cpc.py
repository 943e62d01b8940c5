"""Contrastive predictive coding as modified by Riviere, Joulin, Mazare, Dupoux (ICASSP 2020)."""

from typing import ClassVar

from engine.nets.cpc import Norm
from engine.nets.foresight import Predictor
from engine.objectives.foreseeing import Cell, Foreseeing, Recurrent
from engine.pretext import Pretext
from engine.training.optimizers import Optimizer, Schedule
from engine.training.plan import Training


class ModifiedCpc(Recurrent):
    """CPC with what makes it steady: normed channels, an LSTM, one Transformer block for each distance that is guessed.

    False frames come from the same voice, so nothing is gained by telling voices apart, and what is learnt is closer to the
    phones. Sizes and rates are those that its authors trained with.
    """

    paper: ClassVar[str] = "Riviere et al. 2020, arXiv:2002.02848"
    norm: ClassVar[Norm] = "layerNorm"

    steps: int = Training.again("steps", 300_000)
    rate: float = Training.again("rate", 2e-4)
    optimizer: Optimizer = Training.again("optimizer", "Adam")
    schedule: Schedule = Training.again("schedule", "steady")
    warm_up: float = Training.again("warm_up", 0.0)
    decay: float = Training.again("decay", 0.0)
    batch_seconds: float = Pretext.again("batch_seconds", 960.0)  # 64 stretches of 1.28 s, of clips of 15 s
    window: float = Foreseeing.again("window", 1.28)
    channels: int = Recurrent.again("channels", 256)
    cell: Cell = Recurrent.again("cell", "LSTM")
    predictor: Predictor = Recurrent.again("predictor", "transformer")

    @classmethod
    def title(cls) -> str:
        return "Modified CPC"
