"""Multi-target APC: a frame to come is told, and now and then what was before is told again (Chung and Glass, ACL 2020)."""

from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from engine.nets.apc import APC
from engine.objectives.autoregression import Prediction, Recurrent
from engine.pretext import Batch, Before, Objective
from engine.training.plan import Loss
from engine.upstream import Upstream


class MultiTargetApc(Recurrent):
    """APC that also has to remember: from some of its states a passage that is over has to be told again.

    At 15 % of the frames a recurrent layer of its own begins with the last state and tells a passage of 7 frames that
    began 7 frames before, given at each step the frame before the one it tells. Its mean absolute error counts a tenth. A
    state that remembers well tells the future better; the layer that remembers is thrown away.
    """

    paper: ClassVar[str] = "Chung and Glass 2020, arXiv:2004.05274"

    share: float = Field(0.15, gt=0, le=1, description="Share of the frames at which a passage has to be told again.")
    back: int = Field(7, ge=1, le=200, description="How many frames before it began.")
    passage: int = Field(7, ge=1, le=200, description="Frames of a passage; not more than lie behind.")
    weight: float = Field(0.1, ge=0, le=100, description="How much remembering counts beside telling the future.")

    @classmethod
    def title(cls) -> str:
        return "Multi-target APC"

    @model_validator(mode="after")
    def _over(self) -> Self:
        if self.passage > self.back:
            raise ValueError(f"a passage of {self.passage} frames that began {self.back} frames before is not over")
        return self

    def objective(self, network: Upstream, before: Before) -> Objective:
        assert isinstance(network, APC)
        return Memory(network, self.ahead, self.share, self.back, self.passage, self.weight)


class Memory(Prediction):
    """Both losses, as sums over what is told: by drawn frames, the passage adds as much as the paper's formula says."""

    def __init__(self, network: APC, ahead: int, share: float, back: int, passage: int, weight: float) -> None:
        super().__init__(network, ahead)
        self.share, self.back, self.passage, self.weight = share, back, passage, weight
        mels, width = network.shape.mels, network.shape.dim
        self.memory = nn.GRU(mels, width, batch_first=True)
        self.memory_head = nn.Linear(width, mels)

    def forward(self, batch: Batch) -> Loss:
        clips = batch.part()
        last = self.last(clips)
        future = self.of_future(clips, last)
        anchors = [self.anchors(len(clip), draw) for clip, draw in zip(clips, batch.generators(), strict=True)]
        states = torch.cat([state[at] for state, at in zip(last, anchors, strict=True)])
        given, target = self.passages(clips, anchors)
        past, told = future.total.new_zeros(()), max(1, target.numel())
        if len(states):  # short clips may have no passage
            past = functional.l1_loss(self.memory_head(self.memory(given, states[None])[0]), target, reduction="sum")
        shown = {"future": future.total / future.count, "past": past / told}
        return Loss(future.total + self.weight * past, future.count, shown)

    def anchors(self, frames: int, draw: torch.Generator) -> Tensor:
        """The drawn frames of a clip that have a whole passage, and a frame before it, behind them."""
        drawn = (torch.rand(frames, generator=draw) < self.share).nonzero()[:, 0]
        return drawn[drawn > self.back]

    def passages(self, clips: list[Tensor], anchors: list[Tensor]) -> tuple[Tensor, Tensor]:
        """What has to be told again, and the frame before each: (anchors, passage, mels)."""
        places = [at[:, None] - self.back + torch.arange(self.passage) for at in anchors]
        given = torch.cat([clip[at - 1] for clip, at in zip(clips, places, strict=True)])
        return given, torch.cat([clip[at] for clip, at in zip(clips, places, strict=True)])
