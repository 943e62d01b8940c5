"""What pretexts that guess the frames to come have in common: their form and their loss."""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from engine import upstream
from engine.nets.contrast import others, scores, surprise, suspicion, told_apart
from engine.nets.cpc import CPC, HOP, SHORTEST, Norm, Shape
from engine.nets.foresight import HEADS, Foreseer, Guesses, OverFeatures, Predictor, ahead_of, padded
from engine.nets.wav2vec import Shape as ConvolutionalShape
from engine.pretext import Batch, Before, Objective, Pretext
from engine.training.optimizers import Optimizer, Schedule
from engine.training.plan import Loss, Training
from engine.upstream import SAMPLE_RATE, Card, Upstream

ENCODER = ((10, 5), (8, 4), (4, 2), (4, 2), (4, 2))  # kernel and stride of wav2vec's convolutions
STILL = 0.01  # of their size: frames that vary less are all alike

Source = Literal["clip", "batch"]
Cell = Literal["GRU", "LSTM"]


class Foreseeing(Pretext):
    """A pretext whose network tells the frames to come from others."""

    ahead: int = Field(12, ge=1, le=100, description="How many of the next frames are guessed, each by itself.")
    others: int = Field(128, ge=1, le=1000, description="False frames that each true one has to be told from.")
    source: Source = Field(
        "clip",
        description="Where false frames come from: the same clip, which is one voice; or all clips of the batch, "
        "so that telling voices apart helps.",
    )
    window: float = Field(
        0.0,
        ge=0,
        le=60,
        description="Learn from a stretch of each clip, drawn anew each time; 0 takes all of it.",
        json_schema_extra={"unit": "s"},
    )
    front: Literal["waveform", "features"] = Field(
        "waveform",
        description="What the network hears: the waveform through convolutions, or features, which are much quicker.",
    )
    features: str = Field(
        "mel",
        description="The last layer of this upstream.",
        json_schema_extra={"choices": "upstreams", "when": {"front": "features"}},
    )
    reduce: int = Field(
        2, ge=1, le=10, description="Frames that are stacked into one.", json_schema_extra={"when": {"front": "features"}}
    )

    def needs(self) -> list[str]:
        return super().needs() + upstream.missing(self.features)

    def over(self, channels: int) -> OverFeatures | None:
        """What stands in place of convolutions where the network hears features."""
        return OverFeatures(self.features, self.reduce, channels) if self.front == "features" else None


class Recurrent(Foreseeing):
    """A pretext whose network is that of contrastive predictive coding."""

    norm: ClassVar[Norm] = "ID"  # of each convolution

    channels: int = Field(512, ge=1, le=4096, description="Size of a frame.")
    width: int = Field(256, ge=1, le=4096, description="Size of the recurrent net.")
    layers: int = Field(1, ge=1, le=8, description="Recurrent layers.")
    cell: Cell = Field("GRU", description="Kind of the recurrent net.")
    predictor: Predictor = Field("linear", description="What guesses a frame from the context; one for each distance.")

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.predictor == "transformer" and self.width % HEADS:
            raise ValueError(f"the width {self.width} is not a multiple of the {HEADS} heads of what guesses the frames")
        return self

    def network(self) -> CPC:
        shape = Shape(self.channels, self.width, self.layers, self.cell, self.norm)
        dims = (self.channels, *(self.width,) * self.layers)
        over = self.over(self.channels)
        card = self.card(dims, over.hop, over.shortest) if over else self.card(dims, HOP, SHORTEST, taps=shape.taps)
        return CPC(card, shape, over)

    def objective(self, network: Upstream, before: Before) -> Objective:
        assert isinstance(network, Foreseer)
        guesses = Guesses(self.predictor, network.width, network.channels, self.ahead)
        return Foresight(network, [guesses], self)


class Convolutional(Foreseeing):
    """A pretext whose network is convolutions all over, as in wav2vec; the settings are those that it was trained with."""

    steps: int = Training.again("steps", 400_000)
    rate: float = Training.again("rate", 5e-3)
    optimizer: Optimizer = Training.again("optimizer", "Adam")
    schedule: Schedule = Training.again("schedule", "cosine")
    warm_up: float = Training.again("warm_up", 0.00125)
    decay: float = Training.again("decay", 0.0)
    batch_seconds: float = Pretext.again("batch_seconds", 750.0)
    parts: int = Training.again("parts", 8)
    others: int = Foreseeing.again("others", 10)
    window: float = Foreseeing.again("window", 9.375)
    channels: int = Field(512, ge=8, le=4096, description="Size of a frame and of every layer.")

    def encoder(self, more: int) -> tuple[tuple[int, int, int], ...]:
        """Convolutions over the sound, and some more over each frame by itself."""
        return tuple((self.channels, *sizes) for sizes in (*ENCODER, *((1, 1),) * more))

    def described(self, shape: ConvolutionalShape, dims: Sequence[int], over: OverFeatures | None) -> Card:
        """The card of a network of this shape, over the waveform or over features."""
        if over is None:
            return self.card(dims, shape.hop, shape.shortest, taps=shape.taps)
        codes = [replace(tap, hop=over.hop) for tap in shape.taps if tap.codes]
        return self.card(dims, over.hop, over.shortest, taps=codes)

    def growing(self, first: int, last: int) -> tuple[tuple[int, int], ...]:
        """An aggregator whose layers hear more and more frames at once."""
        return tuple((self.channels, kernel) for kernel in range(first, last + 1))


class Foresight(Objective):
    """From each context, each of the next frames is told from false ones."""

    def __init__(self, network: Foreseer, guesses: list[Guesses], form: Foreseeing, balance: float = 0.0) -> None:
        """`guesses` are those of each direction. With `balance`, every frame is judged by itself: true, or false.

        Then it is how much all false frames together count of a true one.
        """
        super().__init__()
        self.network = network
        self.guesses = torch.nn.ModuleList(guesses)
        self.ahead, self.others, self.source, self.balance = form.ahead, form.others, form.source, balance
        self.window = round(form.window * SAMPLE_RATE / network.stride)

    def prepare(self, wave: Tensor) -> tuple[Tensor]:
        return (self.network.prepared(wave),)

    def forward(self, batch: Batch) -> Loss:
        frames = [self.network.framed(clip) for clip in self.cut(batch)]
        return self.told(frames, self.network.context(frames), batch)

    def cut(self, batch: Batch) -> list[Tensor]:
        """The stretch of each clip that this batch learns from."""
        clips = batch.part()
        if not self.window:
            return clips
        cut = []
        for clip, generator in zip(clips, batch.generators(1), strict=True):
            begin = int(torch.randint(max(1, len(clip) - self.window + 1), (), generator=generator))
            cut.append(clip[begin : begin + self.window])
        return cut

    def told(self, frames: list[Tensor], contexts: list[Tensor], batch: Batch) -> Loss:
        """How well the contexts tell the frames to come."""
        table = torch.cat(frames)
        drawn = self.compared([len(clip) for clip in frames], batch)
        scored: list[Tensor] = []
        for direction, guesses in enumerate(self.guesses):
            sides = [context.chunk(len(self.guesses), dim=1)[direction] for context in contexts]
            # Seen from its end, a clip begins with what comes last.
            guessed = guesses(padded([side.flip(0) for side in sides] if direction else sides))
            for clip, own, compared in zip(guessed, frames, drawn, strict=True):
                begin, distance, true = ahead_of(len(own), self.ahead)
                goal = len(own) - 1 - true if direction else true
                scored.append(scores(clip[begin, distance], own if self.source == "clip" else table, compared[goal]))
        values = torch.cat(scored)
        losses = suspicion(values, self.balance) if self.balance else surprise(values)
        varied = torch.stack([clip.detach().float().var(dim=0, correction=0).mean() for clip in frames]).mean()
        size = table.detach().float().square().mean().sqrt()
        shown = {"accuracy": told_apart(values.detach()), "liveliness": varied.sqrt() / size.clamp(min=1e-12)}
        return Loss(losses.sum(), max(1.0, len(values)), shown)

    def compared(self, lengths: list[int], batch: Batch) -> list[Tensor]:
        """For each frame of each clip, the rows of itself and of its rivals."""
        if self.source == "clip":
            return [
                others(length, self.others, generator) for length, generator in zip(lengths, batch.generators(), strict=True)
            ]
        first = [sum(lengths[:clip]) for clip in range(len(lengths))]
        return [
            others(length, self.others, generator, first=begin, of=sum(lengths))
            for length, begin, generator in zip(lengths, first, batch.generators(), strict=True)
        ]

    def unwell(self, told: dict[str, float]) -> str:
        if told.get("liveliness", 1.0) > STILL:
            return ""
        return (
            "all frames have become alike, so there is nothing to tell apart. Try a lower learning rate or a longer warm-up."
        )
