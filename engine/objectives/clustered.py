"""Guessing the clusters of hidden frames: what HuBERT and its kin share."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from engine import upstream
from engine.nets.contextual import Contextual
from engine.nets.learnt_codes import perplexity, shares
from engine.objectives.cluster_labels import ClusterLabels, learnt
from engine.objectives.hiding import Hiding, TellsApart
from engine.pretext import Batch, Before
from engine.training.plan import Loss, Plan, Training

COLLAPSED = 1.5  # labels that are guessed, were all guessed alike: below this it is one


class Clustered(TellsApart):
    """A pretext whose network guesses the clusters of frames that are hidden from it, in one round or in several."""

    steps: int = Training.again("steps", 400_000)
    batch_seconds: float = TellsApart.again("batch_seconds", 2800.0)
    parts: int = Training.again("parts", 32)
    rate: float = Training.again("rate", 5e-4)
    warm_up: float = Training.again("warm_up", 0.08)
    beta: float = Training.again("beta", 0.98)
    epsilon: float = Training.again("epsilon", 1e-6)
    clip: float = Training.again("clip", 10.0)
    iterations: int = Field(
        2,
        ge=1,
        le=3,
        description="Rounds: each begins anew, the later ones with clusters of what the one before has learnt.",
    )
    first_steps: int = Field(250_000, ge=0, description="Batches of every round but the last; 0 = as many as of the last.")
    targets: str = Field(
        "mfcc-raw",
        description="What the clusters of the first round are made of: a layer of this upstream.",
        json_schema_extra={"choices": "upstreams"},
    )
    targets_layer: int = Field(-1, ge=-1, le=100, description="Which layer; -1 = the last.")
    clusters: int = Field(100, ge=2, le=10_000, description="Clusters in the first round.")
    layer: int = Field(6, ge=0, le=48, description="Layer of a round whose clusters are guessed in the next.")
    later_clusters: int = Field(500, ge=2, le=10_000, description="Clusters in later rounds.")
    sampled: int = Field(
        100_000,
        ge=100,
        le=10_000_000,
        description="Frames that are clustered; the others go to the nearest cluster.",
        json_schema_extra={"advanced": True},
    )
    chance: float = TellsApart.again("chance", 0.08)
    seen_weight: float = Field(
        0.0,
        ge=0,
        le=10,
        description="Weight of the frames that are not hidden in the loss.",
        json_schema_extra={"advanced": True},
    )
    guess_width: int = Field(
        256, ge=2, le=4096, description="Size of a guess and of a cluster's vector.", json_schema_extra={"advanced": True}
    )

    @model_validator(mode="after")
    def _layer_exists(self) -> Self:
        if self.iterations > 1 and self.layer > self.blocks:
            raise ValueError(
                f"layer {self.layer} is to be clustered, but the network has {self.blocks} blocks; choose a lower layer"
            )
        return self

    @property
    def rounds(self) -> int:
        return self.iterations

    def round_plan(self, number: int) -> Plan:
        last = number + 1 == self.iterations
        return self.plan() if last or not self.first_steps else replace(self.plan(), steps=self.first_steps)

    def needs(self) -> list[str]:
        reasons = super().needs() + upstream.missing(self.targets)
        if not reasons and self.targets_layer >= len(upstream.find(self.targets).dims):
            reasons.append(f"{self.targets} has no layer {self.targets_layer}, so that it cannot be clustered.")
        return reasons

    def labels(self, before: Before) -> tuple[ClusterLabels, list[dict[str, Any]]]:
        """What is guessed in a round, and how good it is, and was in the rounds before."""
        begun = sum(self.round_plan(number).steps for number in range(before.round))
        if before.upstream is not None:
            return learnt(before, before.upstream, self.layer, self.later_clusters, self.sampled, self.seed, begun)
        source = upstream.load(self.targets, before.ctx.device)
        return learnt(before, source, self.targets_layer, self.clusters, self.sampled, self.seed, begun)


class Guessing(Hiding):
    """The cross-entropy of guessed clusters: cosines between frames and the learnt vector of each cluster."""

    def __init__(self, spec: Clustered, network: Contextual, before: Before) -> None:
        super().__init__(network, spec.chance, spec.span, spec.dropout, spec.slope)
        self.spec = spec
        self.labels, self.quality = spec.labels(before)
        self.guess = nn.Linear(network.width, spec.guess_width)
        self.vectors = nn.Parameter(torch.rand(self.labels.clusters, spec.guess_width))
        self.late = False

    def prepare(self, wave: Tensor) -> tuple[Tensor, ...]:
        """What is heard, then the cluster of each frame."""
        card = self.network.card
        return (*super().prepare(wave), self.labels(wave, self.network.frames(len(wave)), card.hop_seconds))

    def begin(self, step: int, steps: int) -> None:
        self.late = step >= max(100, steps // 4)

    def forward(self, batch: Batch) -> Loss:
        return self.guessed(batch)[0]

    def guessed(self, batch: Batch) -> tuple[Loss, list[Tensor], Tensor]:
        """The loss, all states of the network, and which frames of all clips were hidden."""
        hides = self.hides(batch)
        local = self.local(batch)
        hidden = torch.cat(hides).to(local.device)
        labels = torch.cat(batch.part(1))
        states = self.network.contextual(self.seen(local, hidden), self.frames(batch))
        weight = self.spec.seen_weight
        total, shown = guesses_cost(self.scores, states[-1], labels, hidden, weight, len(self.vectors))
        counts = [int(each.sum()) if not weight else len(each) for each in hides]
        if self.learns_front and self.spec.penalty:
            # Each clip by itself, so that a batch costs the same in one part or in several.
            clips = zip(torch.split(local, [len(each) for each in hides]), counts, strict=True)
            total = total + self.spec.penalty * sum(count * clip.float().square().mean() for clip, count in clips)
        return Loss(total, float(sum(counts)), shown), states, hidden

    def scores(self, frames: Tensor) -> Tensor:
        """(frames, clusters): cosines over the temperature."""
        with torch.autocast(frames.device.type, enabled=False):
            guess = functional.normalize(self.guess(frames.float()), dim=1)
            return guess @ functional.normalize(self.vectors, dim=1).T / self.spec.temperature

    def unwell(self, told: dict[str, float]) -> str:
        return one_guess_for_all(told, len(self.vectors), self.spec.rate) if self.late else ""

    def facts(self) -> dict[str, Any]:
        return {"clusters": self.quality}


def guesses_cost(
    score: Callable[[Tensor], Tensor], frames: Tensor, labels: Tensor, hidden: Tensor, seen_weight: float, entries: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """The summed cross-entropy of the labels of hidden frames, and by a weight of the others, and what tells of its health.

    That is how often the guesses are right for hidden frames and for the others, and how many labels there are and are
    guessed, as perplexities: 1 where one is all there is.
    """
    scores = score(frames[hidden])
    total = functional.cross_entropy(scores, labels[hidden], reduction="sum")
    with torch.set_grad_enabled(torch.is_grad_enabled() and seen_weight > 0):
        others = score(frames[~hidden])
        if seen_weight:
            total = total + seen_weight * functional.cross_entropy(others, labels[~hidden], reduction="sum")
    guesses = scores.argmax(dim=1)
    return total, {
        "hidden_accuracy": (guesses == labels[hidden]).float().mean(),
        "seen_accuracy": (others.argmax(dim=1) == labels[~hidden]).float().sum() / max(1, len(others)),
        "label_perplexity": perplexity(shares(labels[:, None], entries))[0],
        "guess_perplexity": perplexity(shares(guesses[:, None], entries))[0],
    }


def one_guess_for_all(told: dict[str, float], entries: int, rate: float) -> str:
    """A sentence where nearly every guess is the same one."""
    if told["guess_perplexity"] < COLLAPSED < told["label_perplexity"] / 2:
        return (
            f"the network guesses nearly always the same of {entries} labels, so that it has learnt nothing of the sound. "
            f"Lower the rate ({rate:g}) or make the warm-up longer."
        )
    return ""
