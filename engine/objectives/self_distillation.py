"""What data2vec and DinoSR share: the network sees a part of a clip; a teacher that follows it hears the whole."""

from dataclasses import replace
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from engine.nets.contextual import Contextual
from engine.nets.following import Follower, memory_at, normalised
from engine.nets.wav2vec2 import Shape
from engine.objectives.hiding import HidesRuns, Hiding
from engine.pretext import Batch
from engine.training.optimizers import Schedule
from engine.training.plan import Training


class SelfDistilled(HidesRuns):
    """A pretext whose targets come from the blocks of the network itself, some steps ago."""

    sinusoids: ClassVar[bool] = False  # the teacher would hear them too, and soon they would be all that is guessed

    steps: int = Training.again("steps", 400_000)
    batch_seconds: float = HidesRuns.again("batch_seconds", 3800.0)
    parts: int = Training.again("parts", 40)
    rate: float = Training.again("rate", 5e-4)
    warm_up: float = Training.again("warm_up", 0.03)
    schedule: Schedule = Training.again("schedule", "hold")
    fall: float = Training.again("fall", 0.07)
    beta: float = Training.again("beta", 0.98)
    epsilon: float = Training.again("epsilon", 1e-6)
    nearby: int = HidesRuns.again("nearby", 31)
    top: int = Field(8, ge=1, le=48, description="Blocks of the teacher that give targets, counted from the last.")
    memory: float = Field(
        0.999, ge=0, le=1, description="Share of its weights that the teacher keeps at a step, at the beginning."
    )
    memory_end: float = Field(0.9999, ge=0, le=1, description="And at the end.")
    memory_steps: int = Field(30_000, ge=0, description="Steps in which the one becomes the other.")

    @model_validator(mode="after")
    def _top_fits(self) -> Self:
        if self.top > self.blocks:
            raise ValueError(f"targets of {self.top} blocks cannot be taken from a network of {self.blocks}")
        return self

    def shape(self) -> Shape:
        """Five small convolutions tell positions; the waveform is normalised, and so is what each convolution gives."""
        return replace(
            super().shape(),
            conv_norm="layer",
            position_kernel=19,
            position_depth=5,
            position_norm="layer",
            normalise=1e-5,
        )


class SelfDistillation(Hiding):
    """The network, and the teacher that follows it."""

    def __init__(self, spec: SelfDistilled, network: Contextual) -> None:
        super().__init__(network, spec.chance, spec.span)
        self.spec = spec
        self.teacher = Follower(network)
        self.memory = spec.memory
        self.still = False  # whether front and projection have ended to learn
        self.told_from = 0  # the step from which a collapse is told of; what comes before is the beginning
        self.step = 0

    def begin(self, step: int, steps: int) -> None:
        spec = self.spec
        self.memory = memory_at(step, spec.memory, spec.memory_end, spec.memory_steps)
        self.step, self.told_from = step, min(5000, steps // 4)

    def stepped(self) -> None:
        self.teacher.follow(self.network, self.memory)

    def both(self, batch: Batch) -> tuple[Tensor, list[Tensor], list[int]]:
        """Of the hidden frames, what the network makes of them, the teacher's targets, and how many each clip has."""
        hides, lengths = self.hides(batch), self.frames(batch)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.still):
            local = self.local(batch)
            projected = self.network.projected(local)
        hidden = torch.cat(hides).to(projected.device)
        seen = torch.where(hidden[:, None], self.mask.to(projected.dtype), projected)
        states = self.network.contextual(seen, lengths)
        with torch.no_grad():
            # As published, the front is one for both; on features the teacher has all that is learnt for itself.
            heard = projected if self.learns_front else self.teacher.network.projected(local)
            fed = self.teacher.fed(heard, lengths)[-self.spec.top :]
            targets = [normalised(each, lengths)[hidden] for each in fed]
        return states[-1][hidden], targets, [int(each.sum()) for each in hides]
