"""What a network hears while it learns: clips as they are, or with frames hidden in runs, behind one learnt vector."""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from engine.nets.contextual import Contextual
from engine.nets.masking import runs
from engine.nets.spectral_encoder import SpectralEncoder
from engine.objectives.networks import OnSound
from engine.pretext import Batch, Objective


class HidesRuns(OnSound):
    """A pretext that hides runs of frames."""

    chance: float = Field(0.065, gt=0, le=0.5, description="Share of the frames at which a hidden run begins.")
    span: int = Field(10, ge=1, le=100, description="Frames hidden in a row.")


class TellsApart(HidesRuns):
    """One that scores by cosines what was hidden, and keeps convolutions that learn along within bounds."""

    temperature: float = Field(
        0.1, gt=0, le=10, description="What cosines are divided by.", json_schema_extra={"advanced": True}
    )
    penalty: float = Field(
        10.0,
        ge=0,
        le=1000,
        description="Weight of the mean square of what the convolutions give.",
        json_schema_extra={"advanced": True, "when": {"front": "waveform"}},
    )
    slope: float = Field(
        0.1,
        gt=0,
        le=1,
        description="What the gradient of the convolutions is multiplied by.",
        json_schema_extra={"advanced": True, "when": {"front": "waveform"}},
    )


class Hearing(Objective):
    """The network hears clips as they are, as a waveform or as features."""

    def __init__(self, network: Contextual, slope: float = 1.0) -> None:
        super().__init__()
        self.network = network
        self.slope = slope  # of the gradient that reaches the convolutions
        self.learns_front = not isinstance(network, SpectralEncoder)

    def prepare(self, wave: Tensor) -> tuple[Tensor, ...]:
        """Features that are not learnt are computed once; else it is the waveform that is kept."""
        return (wave,) if self.learns_front else (self.network.local([wave])[0],)

    def frames(self, batch: Batch) -> list[int]:
        """Of each clip."""
        return [self.network.frames(len(clip)) if self.learns_front else len(clip) for clip in batch.part()]

    def local(self, batch: Batch) -> Tensor:
        """Local frames of all clips, one clip after another."""
        if not self.learns_front:
            return torch.cat(batch.part())
        local = torch.cat(self.network.local(batch.part()))
        return local if self.slope == 1.0 else _Sloped.apply(local, self.slope)  # type: ignore[no-untyped-call]


class Hiding(Hearing):
    """The network sees the frames of a clip but those in some runs; what it makes of these is what the loss is about."""

    def __init__(self, network: Contextual, chance: float, span: int, dropout: float = 0.0, slope: float = 1.0) -> None:
        super().__init__(network, slope)
        self.chance, self.span, self.dropout = chance, span, dropout
        self.mask = nn.Parameter(torch.rand(network.width))

    def hides(self, batch: Batch) -> list[Tensor]:
        return [
            runs(frames, self.chance, self.span, generator)
            for frames, generator in zip(self.frames(batch), batch.generators(), strict=True)
        ]

    def seen(self, local: Tensor, hidden: Tensor) -> Tensor:
        """What goes into the blocks: projected frames, and the learnt vector in place of those that are hidden."""
        projected = functional.dropout(self.network.projected(local), self.dropout, self.training)
        return torch.where(hidden[:, None], self.mask.to(projected.dtype), projected)


class _Sloped(torch.autograd.Function):
    """The same values; gradients are multiplied by the slope."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        ctx.slope = slope
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.slope, None
