"""DistilHuBERT: a small network guesses what several layers of a larger one hear (Chang, Yang, Lee, ICASSP 2022)."""

from dataclasses import replace
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from engine import upstream
from engine.nets.contextual import Contextual
from engine.nets.wav2vec2 import Shape
from engine.objectives.hiding import Hearing
from engine.objectives.taught import Taught, heard
from engine.pretext import Batch, Before, Objective
from engine.training.plan import Loss, Training
from engine.upstream import Upstream


class Distilhubert(Taught):
    """Has a small network guess the layers of a large one, its teacher, which may be any upstream.

    A head for each chosen layer guesses it from the last state of the small network; the error is the mean absolute one, and
    a second term has directions agree. Where both are built alike, the front and the first blocks begin as the teacher's.
    The teacher is not changed. Sizes and rates are those of the published model.
    """

    paper: ClassVar[str] = "Chang et al. 2022, arXiv:2110.01900"

    steps: int = Training.again("steps", 200_000)
    batch_seconds: float = Taught.again("batch_seconds", 360.0)
    rate: float = Training.again("rate", 2e-4)
    beta: float = Training.again("beta", 0.98)
    epsilon: float = Training.again("epsilon", 1e-6)
    blocks: int = Taught.again("blocks", 2)
    layer_drop: float = Taught.again("layer_drop", 0.0)
    layers: tuple[int, ...] = Field(
        (),
        description="Layers of the teacher to guess; empty: those a third, two thirds and all the way up (4, 8, 12 of 12).",
    )
    agreement: float = Field(
        1.0,
        ge=0,
        le=100,
        description="Weight of the term that has guesses point the way of the teacher.",
        json_schema_extra={"advanced": True},
    )
    inherit: bool = Field(True, description="Begin with the teacher's weights where both are built alike.")
    slope: float = Field(
        0.1,
        gt=0,
        le=1,
        description="What the gradient of the convolutions is multiplied by.",
        json_schema_extra={"advanced": True, "when": {"front": "waveform"}},
    )

    def needs(self) -> list[str]:
        reasons = super().needs()
        if reasons:
            return reasons
        highest = upstream.find(self.teacher).layers
        beyond = [layer for layer in self.layers if not 0 <= layer <= highest]
        if beyond:
            reasons.append(f"{self.teacher} has no layer {', '.join(map(str, beyond))}: its layers are 0 to {highest}.")
        return reasons

    def shape(self) -> Shape:
        return replace(super().shape(), projection_norm=False)

    def objective(self, network: Contextual, before: Before) -> Objective:  # type: ignore[override]
        teacher = self.taught_by(before.ctx.device)
        inherited = inherit(network, teacher) if self.inherit else 0
        before.ctx.note(
            f"{inherited:,} of {sum(weight.numel() for weight in network.parameters()):,} weights begin as the teacher's."
        )
        return Distillation(network, teacher, self.layers or thirds(teacher.card.layers), self.agreement, self.slope)

    @classmethod
    def title(cls) -> str:
        return "DistilHuBERT"


class Distillation(Hearing):
    """Mean absolute error of the guessed layers, and the surprise at the angle between guess and layer."""

    def __init__(
        self, network: Contextual, teacher: Upstream, layers: tuple[int, ...], agreement: float, slope: float = 1.0
    ) -> None:
        super().__init__(network, slope)
        # In a tuple: the teacher is no part of what is trained or saved.
        self._teacher = (teacher,)
        self.layers, self.agreement = layers, agreement
        width, dims = network.width, [teacher.card.dims[layer] for layer in layers]
        self.heads = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, dim)) for dim in dims)

    def prepare(self, wave: Tensor) -> tuple[Tensor, ...]:
        """With what the teacher makes of the clip, which is never altered: it is heard once in all the training."""
        states = heard(self._teacher[0], wave)
        return (*super().prepare(wave), *(states[layer] for layer in self.layers))

    def forward(self, batch: Batch) -> Loss:
        lengths = self.frames(batch)
        state = self.network.contextual(self.network.projected(self.local(batch)), lengths)[-1]
        # Fronts of different kinds may disagree about the last frame.
        counts = [min(length, len(clip[1])) for length, clip in zip(lengths, batch.clips, strict=True)]
        state = torch.cat([clip[:count] for clip, count in zip(torch.split(state, lengths), counts, strict=True)])
        errors, angles = state.new_zeros(len(state)), state.new_zeros(len(state))
        cosines = state.new_zeros(())
        for number, head in enumerate(self.heads, 1):
            target = torch.cat([clip[:count] for clip, count in zip(batch.part(number), counts, strict=True)])
            guess = head(state).float()
            cosine = functional.cosine_similarity(guess, target, dim=1)
            errors = errors + (guess - target).abs().mean(1) / len(self.heads)
            angles = angles - functional.logsigmoid(cosine) / len(self.heads)
            cosines = cosines + cosine.detach().mean() / len(self.heads)
        return Loss.mean(errors + self.agreement * angles, error=errors.mean(), cosine=cosines)

    def facts(self) -> dict[str, Any]:
        card = self._teacher[0].card
        return {"teacher": {"name": card.name, "revision": card.revision, "layers": list(self.layers)}}


def thirds(layers: int) -> tuple[int, ...]:
    """The layers a third, two thirds and all the way up: 4, 8 and 12 of 12."""
    return tuple(sorted({max(1, round(layers * part / 3)) for part in (1, 2, 3)})) if layers else (0,)


@torch.no_grad()
def inherit(network: Upstream, teacher: Upstream) -> int:
    """Take weights that bear the same name and have the same size in a network of the same kind; gives their number."""
    if type(network) is not type(teacher):
        return 0
    held = dict(teacher.named_parameters())
    count = 0
    for name, weight in network.named_parameters():
        if name in held and held[name].shape == weight.shape:
            weight.copy_(held[name])
            count += weight.numel()
    return count
