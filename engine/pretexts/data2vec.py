"""data2vec: hidden frames are guessed as a slower self hears them in context (Baevski et al. 2022)."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from engine.nets.contextual import Contextual
from engine.nets.following import spread
from engine.objectives.self_distillation import SelfDistillation, SelfDistilled
from engine.pretext import Batch, Before, Objective
from engine.training.plan import Loss

LEAST_TARGET, LEAST_GUESS = 0.1, 0.01  # below which the authors give a training up


class Data2vec(SelfDistilled):
    """Hides runs of frames from a Transformer and has it guess what a teacher, who hears the whole clip, makes of them.

    The teacher is the network itself: its weights follow those of the network, a little each step. Targets are the outputs
    of the feed-forward nets of its last blocks (before they are added), each channel normalised over the clip, averaged.
    Sizes and rates are those of the base model; a small network, or one on features, is quicker.
    """

    paper: ClassVar[str] = "Baevski et al. 2022, arXiv:2202.03555"

    bend: float = Field(
        0.0,
        ge=0,
        le=100,
        description="Error from which on the loss is straight instead of squared; 0: always squared.",
        json_schema_extra={"advanced": True},
    )

    def objective(self, network: Contextual, before: Before) -> Objective:  # type: ignore[override]
        return Guessing(self, network)

    @classmethod
    def title(cls) -> str:
        return "data2vec"


class Guessing(SelfDistillation):
    """The error of the guessed vectors: of each hidden frame, summed over channels, over the root of their number."""

    def __init__(self, spec: Data2vec, network: Contextual) -> None:
        super().__init__(spec, network)
        self.bend = spec.bend
        self.head = nn.Linear(network.width, network.width)

    def forward(self, batch: Batch) -> Loss:
        states, targets, counts = self.both(batch)
        target = sum(targets, targets[0].new_zeros(())) / len(targets)
        guess = self.head(states).float()
        errors = _errors(guess, target, self.bend)
        total = errors.sum() / target.shape[1] ** 0.5
        return Loss(
            total, float(len(guess)), {"teacher_spread": spread(target, counts), "guess_spread": spread(guess, counts)}
        )

    def unwell(self, told: dict[str, float]) -> str:
        if self.step < self.told_from:
            return ""
        for name, whose, least in (("teacher_spread", "targets", LEAST_TARGET), ("guess_spread", "guesses", LEAST_GUESS)):
            if told[name] < least:
                return (
                    f"the {whose} of all frames have become alike (a deviation of {told[name]:.3g}, below {least:g}), so "
                    "nothing is learnt any more. Try a lower rate, a longer warm-up or more of the teacher's memory."
                )
        return ""


def _errors(guess: Tensor, target: Tensor, bend: float) -> Tensor:
    if not bend:
        return functional.mse_loss(guess, target, reduction="none")
    return functional.smooth_l1_loss(guess, target, reduction="none", beta=bend)
