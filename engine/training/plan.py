"""What a training is: what it learns from a batch, and the settings that pretexts and tasks share. `fit` carries it out."""

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from engine.precision import Precision
from engine.run import RunSpec
from engine.training import optimizers
from engine.training.optimizers import Optimizer, Schedule


@dataclass(frozen=True)
class Loss:
    """What a batch cost: a sum, so that parts of a batch add up to the whole."""

    total: Tensor  # over everything that was guessed
    count: float  # of what was guessed
    shown: dict[str, Tensor] = field(default_factory=dict)  # other numbers that are shown beside it: means over the batch

    @classmethod
    def mean(cls, values: Tensor, **shown: Tensor) -> "Loss":
        """The mean of these values is minimised."""
        return cls(values.sum(), float(values.numel()), shown)


class Trainee(nn.Module, ABC):
    """What the loop trains."""

    @abstractmethod
    def forward(self, batch: Any) -> Loss:
        """The loss of what `load` gave."""

    def begin(self, step: int, steps: int) -> None:
        """Called before each step, counted from 0: for what follows a schedule of its own. The step alone must decide."""

    def stepped(self) -> None:
        """Called after the weights have moved: for teachers that follow them. What it changes must be in the state dict."""

    def unwell(self, told: dict[str, float]) -> str:
        """A sentence where these numbers (the mean loss, and what is shown beside it) tell of an illness; else empty."""
        return ""


@dataclass(frozen=True)
class Plan:
    """How a training goes."""

    steps: int
    rate: float  # the highest learning rate
    warm_up: float = 0.07  # share of the steps in which the rate rises
    schedule: Schedule = "line"  # and what it does then: falls to zero in a line or as a cosine, stays, or falls at the end
    fall: float = 0.07  # share of the steps in which `hold` falls
    optimizer: Optimizer = "AdamW"
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    clip: float = 5.0  # largest gradient norm
    decay: float = 0.01  # weight decay; none for biases and norms
    precision: Precision = "float32"
    parts: int = 1  # in which each batch is computed, one after the other
    checkpoint_every: int = 200
    validate_every: int = 100
    average: float = 0.0  # memory of the running mean of the weights that is kept in their place
    patience: int = 0  # validations without a better one after which it ends; 0 = never
    snapshots: bool = False  # weights are kept on the way, too
    recompute: bool = False  # what the blocks gave is computed again on the way back
    seed: int = 0
    asked: dict[str, Any] = field(default_factory=dict)  # all settings: a checkpoint that was made with others is refused

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return optimizers.rate_at(step, self.steps, self.rate, self.warm_up, self.schedule, self.fall)

    @property
    def tell_every(self) -> int:
        """Steps from one recorded loss to the next: about 500 in a training."""
        return max(1, self.steps // 500)


def snapshots(steps: int) -> set[int]:
    """The steps after which a training of so many keeps its weights, where it is asked to: 0, 1, 2, 4, 8 ..., the last."""
    return {0, steps, *(2**power for power in range(steps.bit_length()))}


class Training(RunSpec):
    """The settings of the loop that every training shares."""

    steps: int = Field(100_000, ge=1, le=10_000_000, description="Batches to learn from.")
    rate: float = Field(1e-4, gt=0, le=1, description="Highest learning rate.")
    optimizer: Optimizer = Field(
        "AdamW",
        description="What moves the weights. In Adam too the decay is apart from the gradients, as in AdamW.",
        json_schema_extra={"advanced": True},
    )
    schedule: Schedule = Field(
        "line",
        description="What the rate does when it has risen: fall to zero in a line, as a cosine or only at the end; or stay.",
        json_schema_extra={"advanced": True},
    )
    fall: float = Field(
        0.07,
        gt=0,
        le=1,
        description="Share of the steps in which the rate falls at the end.",
        json_schema_extra={"advanced": True, "when": {"schedule": "hold"}},
    )
    warm_up: float = Field(
        0.07, ge=0, le=1, description="Share of the steps in which the rate rises.", json_schema_extra={"advanced": True}
    )
    beta: float = Field(
        0.999, gt=0, lt=1, description="Memory of the optimizer's second moment.", json_schema_extra={"advanced": True}
    )
    epsilon: float = Field(
        1e-8, gt=0, le=1e-2, description="What keeps its divisions finite.", json_schema_extra={"advanced": True}
    )
    decay: float = Field(
        0.01, ge=0, le=1, description="Weight decay; biases and norms have none.", json_schema_extra={"advanced": True}
    )
    clip: float = Field(5.0, gt=0, description="Largest gradient norm.", json_schema_extra={"advanced": True})
    parts: int = Field(
        1,
        ge=1,
        le=1024,
        description="Parts in which a batch is computed, one after the other, to need less memory.",
        json_schema_extra={"advanced": True},
    )
    processes: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes that share each batch; every one takes a GPU where there are GPUs.",
        json_schema_extra={"advanced": True},
    )
    precision: Precision = Field(
        "float32", description="Number format of the matrix products.", json_schema_extra={"advanced": True}
    )
    checkpoint_every: int = Field(
        1000, ge=1, description="Steps from one checkpoint to the next.", json_schema_extra={"advanced": True}
    )
    validate_every: int = Field(
        1000, ge=1, description="Steps from one validation to the next.", json_schema_extra={"advanced": True}
    )

    average: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Memory of the running mean of the weights that is kept in their place; 0 keeps the last weights.",
        json_schema_extra={"advanced": True},
    )
    patience: int = Field(
        0,
        ge=0,
        description="Validations without a better one after which it ends early; 0 = never.",
        json_schema_extra={"advanced": True},
    )
    recompute: bool = Field(
        False,
        description="Compute the Transformer blocks again on the way back: a third slower, with much less memory.",
        json_schema_extra={"advanced": True},
    )

    @property
    def together(self) -> int:
        return self.processes

    def plan(self) -> Plan:
        """How this training goes."""
        return Plan(
            steps=self.steps,
            rate=self.rate,
            warm_up=self.warm_up,
            schedule=self.schedule,
            fall=self.fall,
            optimizer=self.optimizer,
            betas=(0.9, self.beta),
            epsilon=self.epsilon,
            clip=self.clip,
            decay=self.decay,
            precision=self.precision,
            parts=self.parts,
            checkpoint_every=self.checkpoint_every,
            validate_every=self.validate_every,
            average=self.average,
            patience=self.patience,
            recompute=self.recompute,
            seed=self.seed,
            asked=self.document,
        )


def seed_all(seed: int) -> None:
    """Set every generator that a training may draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def seed_of(*numbers: int) -> int:
    """A seed that depends on all of these numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint32)[0])
