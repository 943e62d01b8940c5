"""vq-wav2vec: wav2vec in the words of two codebooks (Baevski, Schneider, Auli, ICLR 2020)."""

import math
from dataclasses import replace
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from engine.clusters import kmeans
from engine.nets.codebooks import Gumbel, KMeans
from engine.nets.foresight import Guesses
from engine.nets.learnt_codes import Quantized, diversity, perplexity
from engine.nets.wav2vec import Shape, Wav2Vec
from engine.objectives.foreseeing import Convolutional, Foreseeing, Foresight
from engine.pretext import Batch, Before, Objective, Sound
from engine.training.plan import Loss
from engine.upstream import Upstream

FRAMES_EACH = 20  # frames for each entry, among which the entries begin
COOLED = 0.7  # share of the steps after which the temperature is down
COLLAPSED = 1.5  # a book in which fewer entries are in use, by perplexity, says next to nothing


class VqWav2vec(Convolutional):
    """wav2vec whose frames are each replaced by entries of two codebooks, so that speech becomes a string of symbols.

    Context is made of the entries, and entries are what is guessed. They are chosen by their scores, by a draw that grows
    colder as the training goes on (Gumbel), or the nearest is taken (k-means). Sizes and rates are the paper's.
    """

    paper: ClassVar[str] = "Baevski et al. 2019, arXiv:1910.05453"

    ahead: int = Foreseeing.again("ahead", 8)
    quantizer: Literal["gumbel", "kmeans"] = Field("gumbel", description="How an entry is chosen.")
    codebooks: int = Field(2, ge=1, le=32, description="Codebooks; each frame takes an entry of every one.")
    entries: int = Field(320, ge=2, le=8192, description="Entries of each codebook.")
    shared: bool = Field(True, description="All codebooks have the same entries.", json_schema_extra={"advanced": True})
    hottest: float = Field(
        2.0,
        gt=0,
        le=100,
        description="Temperature of the draw at the beginning; it falls in a line until 70 % of the steps.",
        json_schema_extra={"advanced": True, "when": {"quantizer": "gumbel"}},
    )
    coldest: float = Field(
        0.5,
        gt=0,
        le=100,
        description="Temperature from there on.",
        json_schema_extra={"advanced": True, "when": {"quantizer": "gumbel"}},
    )
    diversity: float = Field(
        0.0,
        ge=0,
        le=100,
        description="Weight of a loss that asks for all entries to be used; the paper has none.",
        json_schema_extra={"advanced": True, "when": {"quantizer": "gumbel"}},
    )
    commitment: float = Field(
        0.25,
        ge=0,
        le=100,
        description="How much frames are drawn to their entries, where entries are drawn to frames by 1.",
        json_schema_extra={"advanced": True, "when": {"quantizer": "kmeans"}},
    )

    @model_validator(mode="after")
    def _books_fit(self) -> Self:
        if self.channels % self.codebooks:
            raise ValueError(f"the {self.channels} channels cannot be divided among {self.codebooks} codebooks")
        return self

    def shape(self) -> Shape:
        return Shape(
            convolutions=self.encoder(3),
            aggregator=self.growing(2, 13),
            logarithm=True,
            aggregator_skips=True,
            quantizer=self.quantizer,
            codebooks=self.codebooks,
            entries=self.entries,
            quantizer_depth=2,
            shared=self.shared,
        )

    def network(self) -> Wav2Vec:
        shape, over = self.shape(), self.over(self.channels)
        card = replace(self.described(shape, shape.dims, over), differentiable=self.quantizer != "gumbel")
        return Wav2Vec(card, shape, over)

    def objective(self, network: Upstream, before: Before) -> Objective:
        assert isinstance(network, Wav2Vec)
        if isinstance(network.quantizer, KMeans):
            _spread(network.quantizer, network, before.sound, self.seed)
        return InWords(network, self)

    @classmethod
    def title(cls) -> str:
        return "vq-wav2vec"


@torch.no_grad()
def _spread(quantizer: KMeans, network: Wav2Vec, sound: Sound, seed: int) -> None:
    """Let the entries begin among frames. The paper's begin near zero, from where a small network reaches only a few."""
    clips: list[Tensor] = []
    while len(clips) < len(sound) and sum(map(len, clips)) < FRAMES_EACH * quantizer.entries:
        clips.append(quantizer.near(network.framed(network.prepared(sound.wave(len(clips))))))
    near = torch.cat(clips)
    books = near.view(len(near), quantizer.codebooks, -1).transpose(0, 1)
    rows = books.flatten(0, 1)[None] if quantizer.vectors.shape[1] == 1 else books
    if rows.shape[1] >= quantizer.entries:
        centres = [kmeans(book, quantizer.entries, seed=seed, steps=10) for book in rows]
        quantizer.vectors.copy_(torch.stack(centres, dim=1))


class InWords(Foresight):
    """Foresight of entries from entries."""

    network: Wav2Vec

    def __init__(self, network: Wav2Vec, form: VqWav2vec) -> None:
        guesses = Guesses("linear", network.width, network.channels, form.ahead, bias=True)
        super().__init__(network, [guesses], form, balance=float(form.others))
        self.form = form
        self.temperature = form.hottest

    def begin(self, step: int, steps: int) -> None:
        form = self.form
        self.temperature = form.hottest + (form.coldest - form.hottest) * min(1.0, step / (COOLED * steps))

    def forward(self, batch: Batch) -> Loss:
        frames = [self.network.framed(clip) for clip in self.cut(batch)]
        words, asked = self.quantized(frames)
        vectors = [word.vectors for word in words]
        loss = self.told(vectors, self.network.context(vectors), batch)
        used = perplexity(_pooled([word.used for word in words], frames)).mean()
        return Loss(loss.total + asked * loss.count, loss.count, {**loss.shown, "perplexity": used})

    def quantized(self, frames: list[Tensor]) -> tuple[list[Quantized], Tensor]:
        """The frames of each clip in entries, and what is asked of the entries."""
        quantizer = self.network.quantizer
        if isinstance(quantizer, Gumbel):
            drawn = [quantizer.learn(clip, self.temperature) for clip in frames]
            return drawn, self.form.diversity * diversity(_pooled([word.likely for word in drawn], frames))
        assert isinstance(quantizer, KMeans)
        nearest = [quantizer.learn(clip, self.form.commitment) for clip in frames]
        return [word for word, _ in nearest], _pooled([apart for _, apart in nearest], frames)

    def unwell(self, told: dict[str, float]) -> str:
        if told.get("perplexity", math.inf) < COLLAPSED:
            return (
                "the codebooks have collapsed: nearly all frames take one entry. Try a lower learning rate, fewer entries, "
                "or with the Gumbel quantizer a weight for diversity."
            )
        return super().unwell(told)


def _pooled(values: list[Tensor], frames: list[Tensor]) -> Tensor:
    """The mean over the frames of all clips, of what is a mean over those of each."""
    count = sum(len(clip) for clip in frames)
    return torch.stack([value * (len(clip) / count) for value, clip in zip(values, frames, strict=True)]).sum(dim=0)
