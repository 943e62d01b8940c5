"""Keyword spotting as in SUPERB (Yang et al. 2021): which command was said."""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from engine.nets.heads import MeanPoolHead
from engine.task import Task


class KeywordSpotting(Task):
    """Trains a classifier of spoken commands on an upstream, frozen or trained along, and scores its accuracy.

    The head is a linear map to 256, the mean over frames and a linear map to the classes. Mean and linear map can change
    places, so for a frozen upstream every clip is encoded once and only its mean is kept. Rates and sizes are SUPERB's.
    """

    primary: ClassVar[str] = "accuracy"
    mean_is_enough: ClassVar[bool] = True

    def head(self, dim: int, classes: int) -> nn.Module:
        return MeanPoolHead(dim, classes)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, targets)

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        return {"accuracy": float((outputs.argmax(-1) == targets).double().mean())}
