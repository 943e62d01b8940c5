"""LightHuBERT: one network within which there are many smaller ones (Wang et al., Interspeech 2022)."""

from dataclasses import replace
from itertools import product
from operator import attrgetter
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from engine import upstream
from engine.nets.contextual import Contextual
from engine.nets.following import normalised
from engine.nets.wav2vec2 import Shape
from engine.nets.within import cut
from engine.objectives.hiding import HidesRuns, Hiding
from engine.objectives.taught import Taught, heard
from engine.pretext import Batch, Before, Objective
from engine.run import Context
from engine.training.plan import Loss, Training, seed_of
from engine.upstream import Upstream


class Lighthubert(HidesRuns, Taught):
    """Has a network guess hidden frames as a teacher has them who hears the whole clip; and then every part of it, too.

    At first the whole network learns, then at each step a part that is drawn: its first channels, heads and blocks. So each
    part is a network by itself that need not be trained anew. The whole is job:ID, the largest part of each width
    job:ID@width-640, the least one job:ID@smallest. Targets and loss are those of data2vec, of any upstream as the teacher;
    all blocks of a part are alike. Sizes of the whole and of its parts are those of the published model.
    """

    paper: ClassVar[str] = "Wang et al. 2022, arXiv:2203.15610"

    steps: int = Training.again("steps", 400_000)
    rate: float = Training.again("rate", 5e-4)
    layer_drop: float = Taught.again("layer_drop", 0.0)
    top: int = Field(8, ge=1, le=48, description="Layers of the teacher that give targets, counted from the last.")
    alone: float = Field(
        0.5, ge=0, le=1, description="Share of the steps, at the beginning, in which only the whole learns."
    )
    widths: tuple[int, ...] = Field((512, 640), description="Widths of parts, beside that of the whole.")
    ratios: tuple[float, ...] = Field((3.5, 4.0), description="Sizes of the feed-forward nets of parts, in widths.")
    depths: tuple[int, ...] = Field((), description="Blocks of parts; empty: all.")

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.recompute:
            raise ValueError(
                "what the blocks gave cannot be computed again here, since their weights are others at each step"
            )
        each = self.width // self.heads
        for width in self.widths:
            if not 0 < width < self.width or width % each:
                raise ValueError(f"a part cannot be {width} wide: that is no multiple of a head ({each}) below {self.width}")
            if self.front == "waveform" and width % (groups := self.shape().position_groups):
                raise ValueError(f"a part cannot be {width} wide: the convolution of positions has {groups} groups")
        for depth in self.depths:
            if not 0 < depth <= self.blocks:
                raise ValueError(f"a part cannot have {depth} of {self.blocks} blocks")
        for ratio in self.ratios:
            if not 1 <= round(ratio * self.width) <= self.inner:
                raise ValueError(f"feed-forward nets of {self.inner} hold no {ratio:g} times a width of {self.width}")
        return self

    def needs(self) -> list[str]:
        reasons = super().needs()
        if not reasons and self.top > upstream.find(self.teacher).layers:
            layers = upstream.find(self.teacher).layers
            reasons.append(f"{self.teacher} has only {layers} layers, so {self.top} of them cannot give targets.")
        return reasons

    def shape(self) -> Shape:
        return replace(super().shape(), conv_norm="layer", normalise=1e-5)

    def objective(self, network: Contextual, before: Before) -> Objective:  # type: ignore[override]
        return OnceForAll(self, network, self.taught_by(before.ctx.device))

    @property
    def nested(self) -> list["Lighthubert"]:
        """Every network that is within this one, beginning with itself."""
        sizes = product((self.width, *self.widths), self.ratios, self.depths or (self.blocks,))
        parts = {(width, round(ratio * width), depth): self._part(width, ratio, depth) for width, ratio, depth in sizes}
        parts.pop((self.width, self.inner, self.blocks), None)
        return [self, *parts.values()]

    def keep(self, network: Upstream, ctx: Context, place: str, step: int) -> str:
        """The upstream, and of what is ready also the parts that have names."""
        if place == "upstream":
            for called, part in self.named().items():
                made = part.network()
                made.load_state_dict(cut(network, made))
                part.keep(made, ctx, called, step)
        return super().keep(network, ctx, place, step)

    def named(self) -> dict[str, "Lighthubert"]:
        """The parts that are kept by themselves: the largest of each width, and the least of all."""
        parts = sorted(self.nested[1:], key=attrgetter("width", "blocks", "inner"))
        named = {f"width-{part.width}": part for part in parts if part.width < self.width}
        return {**named, "smallest": parts[0]} if parts else named

    def _part(self, width: int, ratio: float, depth: int) -> "Lighthubert":
        heads = width // (self.width // self.heads)
        sizes = {"width": width, "heads": heads, "inner": round(ratio * width), "blocks": depth}
        return self.model_copy(update={**sizes, "widths": (), "ratios": (), "depths": ()})

    @classmethod
    def title(cls) -> str:
        return "LightHuBERT"


class OnceForAll(Hiding):
    """The squared error of guessed frames that were hidden, of the whole network or of the part that is drawn for a step."""

    def __init__(self, spec: Lighthubert, network: Contextual, teacher: Upstream) -> None:
        super().__init__(network, spec.chance, spec.span)
        self.spec = spec
        self.top = spec.top
        # In a tuple and a list: neither the teacher nor the parts, which have no weights of their own, are trained or saved.
        self._teacher = (teacher,)
        self._parts = _built(spec)
        self.drawn = 0  # the part that learns; 0 is the whole
        self.head = nn.Linear(network.width, teacher.card.dims[-1], bias=False)

    def begin(self, step: int, steps: int) -> None:
        self.drawn = 0
        if step >= self.spec.alone * steps:
            generator = torch.Generator().manual_seed(seed_of(self.spec.seed, step))
            self.drawn = int(torch.randint(len(self._parts) + 1, (), generator=generator))

    def prepare(self, wave: Tensor) -> tuple[Tensor, ...]:
        """With the target of each frame: the mean of the teacher's last layers, which are heard once in all the training."""
        states = heard(self._teacher[0], wave)[-self.top :]
        target = sum((normalised(state, [len(state)]) for state in states), torch.zeros_like(states[-1])) / len(states)
        return (*super().prepare(wave), target)

    def forward(self, batch: Batch) -> Loss:
        lengths, hides = self.frames(batch), self.hides(batch)
        hidden = torch.cat(hides).to(self.mask.device)
        state = self._heard(self.local(batch), hidden, lengths)
        # Fronts of different kinds may disagree about the last frame.
        counts = [min(length, len(target)) for length, target in zip(lengths, batch.part(1), strict=True)]
        asked = [hide[:count].to(state.device) for hide, count in zip(hides, counts, strict=True)]
        clips = zip(torch.split(state, lengths), asked, strict=True)
        guess = functional.linear(torch.cat([clip[: len(ask)][ask] for clip, ask in clips]), self._within(self.head.weight))
        wanted = zip(batch.part(1), asked, strict=True)
        target = torch.cat([clip[: len(ask)][ask] for clip, ask in wanted])
        errors = functional.mse_loss(guess.float(), target, reduction="none").mean(1)
        cosine = functional.cosine_similarity(guess.detach().float(), target, dim=1)
        return Loss.mean(errors, cosine=cosine.mean())

    def facts(self) -> dict[str, Any]:
        card = self._teacher[0].card
        held = {called: [part.width, part.blocks, part.inner] for called, part in self.spec.named().items()}
        return {
            "teacher": {"name": card.name, "revision": card.revision, "top": self.top},
            "nested": {"number": len(self._parts), "kept": held},
        }

    def _heard(self, local: Tensor, hidden: Tensor, lengths: list[int]) -> Tensor:
        """The last state, of the whole while nothing is learnt."""
        if not (self.drawn and self.training):
            return self.network.contextual(self.seen(local, hidden), lengths)[-1]
        part = self._parts[self.drawn - 1].train()
        weights = {f"network.{name}": weight for name, weight in cut(self.network, part.network).items()}
        state: Tensor = functional_call(part, weights, (local, hidden, self._within(self.mask), lengths))
        return state

    def _within(self, weight: Tensor) -> Tensor:
        """The first columns of a weight, as many as the part that learns is wide."""
        return weight[..., : self._parts[self.drawn - 1].network.width] if self.drawn and self.training else weight


class _Part(nn.Module):
    """A part of a network, which is lent its weights."""

    def __init__(self, network: Contextual) -> None:
        super().__init__()
        self.network = network

    def forward(self, local: Tensor, hidden: Tensor, mask: Tensor, lengths: list[int]) -> Tensor:
        projected = self.network.projected(local)
        seen = torch.where(hidden[:, None], mask.to(projected.dtype), projected)
        return self.network.contextual(seen, lengths)[-1]


def _built(spec: Lighthubert) -> list[_Part]:
    with torch.random.fork_rng(devices=[]):  # their own first weights are thrown away
        return [_Part(part.network()).to("meta") for part in spec.nested[1:]]
