"""VQ-VAE: sound through the needle's eye of a codebook and back (van den Oord et al. 2017; Chorowski et al. 2019)."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from engine import upstream
from engine.nets.clips import convolved
from engine.nets.learnt_codes import collapse
from engine.nets.vq_vae import Shape, stacked
from engine.nets.vq_vae import VqVae as Network
from engine.pretext import Batch, Before, Objective, Pretext
from engine.training.optimizers import Optimizer, Schedule
from engine.training.plan import Loss, Training
from engine.upstream import Upstream


class VqVae(Pretext):
    """Brings a clip through the words of a learnt codebook, one word for every 20 ms, and has it told again from them.

    Convolutions give each frame a short vector; the nearest of 512 entries stands for it, and others make the clip from
    those. To tell it well with so few words, they have to name the sounds there are. Entries follow the vectors that choose
    them, one that is hardly used takes over half of one that is used much, and vectors are drawn to their entries. Words are
    now and then swapped for a neighbour's, so that they stay longer with one sound. The network is that of Chorowski et al.;
    but what is told are filterbanks instead of samples, and nothing but the words says who speaks.
    The last state is what the codebook is given; the words are there as the tap `codes`.
    """

    paper: ClassVar[str] = "van den Oord et al. 2017, arXiv:1711.00937; Chorowski et al. 2019, arXiv:1901.08810"

    steps: int = Training.again("steps", 900_000)
    rate: float = Training.again("rate", 4e-4)
    optimizer: Optimizer = Training.again("optimizer", "Adam")
    schedule: Schedule = Training.again("schedule", "steady")
    warm_up: float = Training.again("warm_up", 0.0)
    decay: float = Training.again("decay", 0.0)
    batch_seconds: float = Pretext.again("batch_seconds", 20.0)
    features: str = Field(
        "mfcc",
        description="What the network is given: the last layer of this upstream.",
        json_schema_extra={"choices": "upstreams", "advanced": True},
    )
    target: str = Field(
        "fbank",
        description="What is told again: the last layer of this upstream, which has as many frames.",
        json_schema_extra={"choices": "upstreams", "advanced": True},
    )
    reduce: int = Field(2, ge=1, le=20, description="Frames for which one word stands.")
    width: int = Field(768, ge=8, le=4096, description="Size of a layer.")
    convolutions: int = Field(5, ge=1, le=24, description="Convolutions over three frames.")
    linears: int = Field(4, ge=0, le=24, description="Layers over one frame that follow.")
    word: int = Field(64, ge=1, le=1024, description="Size of an entry of the codebook.")
    codebook: int = Field(512, ge=2, le=65_536, description="Entries of the codebook.")
    commitment: float = Field(
        0.25,
        ge=0,
        le=100,
        description="How strongly vectors are drawn to their entries.",
        json_schema_extra={"advanced": True},
    )
    swap: float = Field(
        0.12,
        ge=0,
        le=1,
        description="Share of the words that are swapped for a neighbour's while learning.",
        json_schema_extra={"advanced": True},
    )

    @classmethod
    def title(cls) -> str:
        return "VQ-VAE"

    def needs(self) -> list[str]:
        reasons = super().needs() + upstream.missing(self.features, self.target)
        if not reasons and upstream.find(self.features).hop != upstream.find(self.target).hop:
            reasons.append(
                f"{self.features} and {self.target} have frames of different lengths. Choose two upstreams whose frames "
                "follow one another equally fast."
            )
        return reasons

    def network(self) -> Network:
        shape = Shape(self.features, self.reduce, self.width, self.convolutions, self.linears, self.word, self.codebook)
        return Network(self.card(shape.dims, shape.hop, shape.shortest, taps=shape.taps), shape)

    def objective(self, network: Upstream, before: Before) -> Objective:
        assert isinstance(network, Network)
        return Retelling(network, upstream.load(self.target), self.commitment, self.swap)


class Retelling(Objective):
    """Mean squared error of what is told, and of vectors from the entries that stand for them."""

    def __init__(self, network: Network, target: Upstream, commitment: float, swap: float) -> None:
        super().__init__()
        self.network = network
        self._target = (target,)  # in a tuple: it is not trained
        self.commitment, self.swap = commitment, swap
        self.settled = False  # entries begin far from the vectors, and few are chosen at first
        shape = network.shape
        self.reduce = shape.reduce
        self.decoder = nn.ModuleList(
            nn.Conv1d(shape.width if number else shape.word, shape.width, 3, padding=1) for number in range(3)
        )
        self.head = nn.Linear(shape.width, target.card.dims[-1] * shape.reduce)

    def prepare(self, wave: Tensor) -> tuple[Tensor, ...]:
        given = self.network.local([wave])[0]
        told = stacked(self._target[0].encode([wave]).clip(0)[-1], self.reduce)
        frames = min(len(given), len(told))  # windows may begin and end a little differently
        return given[:frames], told[:frames]

    def forward(self, batch: Batch) -> Loss:
        clips, target = batch.part(), torch.cat(batch.part(1))
        vectors = self.network.states(clips)[-1]
        quantized = self.network.codebook(vectors)
        words = quantized.vectors
        if self.training:
            places = [neighbours(len(clip), self.swap, draw) for clip, draw in zip(clips, batch.generators(), strict=True)]
            begins = [sum(len(clip) for clip in clips[:number]) for number in range(len(clips))]
            words = words[torch.cat([begin + at for begin, at in zip(begins, places, strict=True)])]
        told = functional.mse_loss(self.retold(words, [len(clip) for clip in clips]), target, reduction="sum")
        entries = self.network.codebook.chosen(quantized.codes)
        drawn = functional.mse_loss(vectors, entries, reduction="sum") / vectors.shape[1] * target.shape[1]
        shown = {
            "told": told / target.numel(),
            "commitment": drawn / target.numel(),
            "perplexity": quantized.perplexity,
        }
        return Loss(told + self.commitment * drawn, float(target.numel()), shown)

    def retold(self, words: Tensor, lengths: list[int]) -> Tensor:
        """What the decoder makes of words, clip after clip."""
        x = words
        for number, layer in enumerate(self.decoder):
            y = functional.relu(convolved(layer, x, lengths))
            x = x + y if number else y
        told: Tensor = self.head(x)
        return told

    def stepped(self) -> None:
        self.network.codebook.follow()

    def begin(self, step: int, steps: int) -> None:
        self.settled = step >= 0.05 * steps

    def unwell(self, told: dict[str, float]) -> str:
        return collapse(told["perplexity"], self.network.shape.entries) if self.settled else ""


def neighbours(frames: int, share: float, generator: torch.Generator) -> Tensor:
    """(frames,) which frame's word stands at each place: its own, or for a share that of the frame before or after."""
    draw = torch.rand(frames, generator=generator)
    shift = (draw < share).long() - 2 * (draw < share / 2).long()
    return (torch.arange(frames) + shift).clamp(0, frames - 1)
