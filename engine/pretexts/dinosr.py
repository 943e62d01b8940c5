"""DinoSR: hidden frames are named by the clusters of a slower self, which are found on the way (Liu et al. 2023)."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from engine.nets.contextual import Contextual
from engine.nets.learnt_codes import EmaCodes, perplexity, shares
from engine.objectives.self_distillation import SelfDistillation, SelfDistilled
from engine.pretext import Batch, Before, Objective
from engine.training.plan import Loss, Training


class Dinosr(SelfDistilled):
    """Hides runs of frames from a Transformer and has it guess the clusters in which a teacher puts them, who hears all.

    The teacher is the network itself: its weights follow those of the network. Each of its last blocks has a codebook, whose
    entries follow the frames that are nearest to them; for each the network guesses the entry. From the middle of the
    training on the teacher stands still. Sizes and rates are those of the base model.
    """

    paper: ClassVar[str] = "Liu et al. 2023, arXiv:2305.10005"

    fall: float = Training.again("fall", 0.5)
    chance: float = SelfDistilled.again("chance", 0.08)
    entries: int = Field(256, ge=2, le=4096, description="Clusters for each block of the teacher.")
    code_memory: float = Field(
        0.9, ge=0, lt=1, description="Share of itself that a cluster keeps at a step.", json_schema_extra={"advanced": True}
    )
    revive: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="A cluster of fewer frames than this share of the average takes over half of the largest; 0: none does, "
        "as published, which asks for large batches.",
        json_schema_extra={"advanced": True},
    )
    still_after: int = Field(
        200_000,
        ge=0,
        description="Steps after which the teacher, and the front of the network, stand still.",
        json_schema_extra={"advanced": True},
    )

    def objective(self, network: Contextual, before: Before) -> Objective:  # type: ignore[override]
        return Naming(self, network)

    @classmethod
    def title(cls) -> str:
        return "DinoSR"


class Naming(SelfDistillation):
    """Cross-entropy of the guessed entries, on average of the teacher's blocks."""

    def __init__(self, spec: Dinosr, network: Contextual) -> None:
        super().__init__(spec, network)
        self.entries, self.still_after = spec.entries, spec.still_after
        self.codes = EmaCodes(spec.top, spec.entries, network.width, decay=spec.code_memory, least=spec.revive)
        self.heads = nn.Linear(network.width, spec.top * spec.entries)

    def begin(self, step: int, steps: int) -> None:
        super().begin(step, steps)
        self.still = step >= self.still_after
        if self.still:
            self.memory = 1.0

    def stepped(self) -> None:
        super().stepped()
        self.codes.follow()

    def forward(self, batch: Batch) -> Loss:
        states, targets, _ = self.both(batch)
        frames = torch.cat(targets, dim=1)
        codes = self.codes.codes(frames)
        if self.training:
            self.codes.remember(frames, codes)
        scores = self.heads(states).float().unflatten(1, (-1, self.entries))
        losses = functional.cross_entropy(scores.transpose(1, 2), codes, reduction="none").mean(1)
        return Loss.mean(
            losses,
            accuracy=(scores.argmax(2) == codes).float().mean(),
            perplexity=perplexity(shares(codes, self.entries)).mean(),
            guess_perplexity=perplexity(scores.detach().softmax(2).mean(0)).mean(),
        )

    def unwell(self, told: dict[str, float]) -> str:
        if self.step < self.told_from:
            return ""
        for name, what in (("perplexity", "frames"), ("guess_perplexity", "guesses")):
            if told[name] < 1.5:
                return (
                    f"nearly all {what} fall into one cluster of {self.entries} (a perplexity of {told[name]:.2f}), "
                    "so nothing is learnt any more. Try a lower rate, a longer warm-up or more of the teacher's memory."
                )
        return ""
