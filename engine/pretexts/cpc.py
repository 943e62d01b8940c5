"""Contrastive predictive coding (van den Oord, Li, Vinyals 2018)."""

from typing import ClassVar

from engine.objectives.foreseeing import Foreseeing, Recurrent, Source
from engine.pretext import Pretext
from engine.training.optimizers import Optimizer, Schedule
from engine.training.plan import Training


class Cpc(Recurrent):
    """Hears a sound up to a moment and tells which of many frames are the next twelve; no sound has to be drawn for that.

    Convolutions turn the sound into frames, a recurrent net sums up what was heard, and a linear map for each distance makes
    a guess from it. The true frame has to look more like the guess than false ones do. Sizes and rates are the paper's; it
    does not say how many false frames there were.
    """

    paper: ClassVar[str] = "van den Oord et al. 2018, arXiv:1807.03748"

    steps: int = Training.again("steps", 300_000)
    rate: float = Training.again("rate", 2e-4)
    optimizer: Optimizer = Training.again("optimizer", "Adam")
    schedule: Schedule = Training.again("schedule", "steady")
    warm_up: float = Training.again("warm_up", 0.0)
    decay: float = Training.again("decay", 0.0)
    batch_seconds: float = Pretext.again("batch_seconds", 960.0)  # 64 stretches of 1.28 s, of clips of 15 s
    source: Source = Foreseeing.again("source", "batch")
    window: float = Foreseeing.again("window", 1.28)

    @classmethod
    def title(cls) -> str:
        return "CPC"
