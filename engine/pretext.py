"""What a pretext is: a task without labels that an upstream is trained on. The finished upstream is found as job:ID."""

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import yaml
from pydantic import Field
from torch import Tensor, nn

from engine import audio, corpus
from engine.corpus import Utterance
from engine.errors import Refused
from engine.nets.describing import parameters
from engine.nets.encoder import Encoder
from engine.recent import Recent
from engine.registry import Registry
from engine.run import Context, Figure, Result, write_text
from engine.train import Order, Training, curve, fit, seed_all

PIECE_SECONDS = 15.0  # longer utterances are cut into pieces of at most this
VALID_SECONDS = 120.0  # sound that the validation loss is measured on


class Objective(nn.Module, ABC):
    """The loss of a pretext. It holds the network and whatever else is learnt only to be thrown away, such as heads."""

    @abstractmethod
    def prepare(self, wave: Tensor) -> Tensor:
        """What the network takes of one clip, computed once and kept: features, or the waveform itself. Time comes first."""

    @abstractmethod
    def forward(self, clips: list[Tensor]) -> dict[str, Tensor]:
        """The losses of a batch of prepared clips; "loss" is minimised, others are shown beside it."""


class Pretext(Training):
    """Trains an upstream on sound alone. Subclasses say what the network is and what it has to guess."""

    family: ClassVar[str] = "pretext"
    paper: ClassVar[str] = ""  # where it comes from: "Liu et al. 2020, arXiv:1910.12638"

    corpus: str = Field(
        "spoken:sentences", description="The recordings to learn from.", json_schema_extra={"choices": "corpora"}
    )
    steps: int = Field(1_000_000, ge=1, le=10_000_000, description="Batches to learn from.")
    batch_seconds: float = Field(
        144.0, gt=0, le=10_000, description="Sound in one batch, padding included.", json_schema_extra={"unit": "s"}
    )
    rate: float = Field(2e-4, gt=0, le=1, description="Highest learning rate.")
    clip: float = Field(5.0, gt=0, description="Largest gradient norm.", json_schema_extra={"advanced": True})

    @abstractmethod
    def network(self) -> Encoder:
        """The network that will be the upstream, with random weights."""

    @abstractmethod
    def objective(self, network: Encoder) -> Objective:
        """What the network is trained on."""

    def needs(self) -> list[str]:
        return corpus.missing(self.corpus)

    def run(self, ctx: Context) -> Result:
        """Train, then leave the upstream in artifacts/upstream."""
        ctx.progress(0, self.steps, "reading the corpus")
        train, valid = _divide(list(corpus.find(self.corpus).utterances()), self.corpus)
        seed_all(self.seed)
        network = self.network()
        objective = self.objective(network)
        shortest = network.shortest / audio.SAMPLE_RATE
        learnt, held = Clips(train, objective, shortest), Clips(valid, objective, shortest, VALID_SECONDS)
        order = Order([piece.seconds for piece in learnt.pieces], self.batch_seconds, self.seed)

        def validate() -> dict[str, float]:
            return _mean_losses(objective, held, self.batch_seconds, ctx)

        plan = self.plan(self.steps, self.rate, self.clip)
        fitted = fit(
            objective, lambda step: [learnt[index].to(ctx.device) for index in order(step)], plan, ctx, validate=validate
        )
        revision = self.keep(network, ctx)
        table = curve(fitted)
        return Result(
            table,
            [Figure("line", f"{self.title()}: loss", x="step", y="loss", by="split", x_title="step", y_title="loss")],
            {
                "upstream": f"job:{ctx.folder.name}",
                "revision": revision,
                "corpus": {"name": self.corpus, "content": corpus.find(self.corpus).content},
                "seconds_of_sound": round(sum(piece.seconds for piece in learnt.pieces), 1),
                "weights": sum(weight.numel() for weight in network.parameters()),
                "first_loss": table[0]["loss"],
                "last_loss": fitted.history[-1]["loss"],
                "last_valid_loss": fitted.history[-1].get("valid_loss"),
            },
        )

    def keep(self, network: Encoder, ctx: Context) -> str:
        """Write the upstream as weights, card and recipe; gives its revision, a hash of the weights."""
        from safetensors.torch import save_file

        folder = ctx.artifact("upstream/card.json").parent
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        beside = folder / ".model.safetensors.tmp"
        save_file(weights, beside)
        beside.replace(folder / "model.safetensors")
        recipe = yaml.safe_dump(self.document, sort_keys=False, allow_unicode=True)
        write_text(folder / "recipe.yaml", recipe)
        revision = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:12]
        # The card last: an upstream is there when its card is.
        write_text(folder / "card.json", json.dumps(card_of(self, network, revision), indent=1))
        return revision


PRETEXTS: Registry[Pretext] = Registry(Pretext, "engine.pretexts")  # type: ignore[type-abstract]


def card_of(spec: Pretext, network: Encoder, revision: str) -> dict[str, Any]:
    """What a card tells of a trained upstream, as plain JSON."""
    return {
        "spec": spec.document,
        "layers": len(network.dims) - 1,
        "dims": list(network.dims),
        "hop": network.hop,
        "shortest": network.shortest,
        "attention": network.attention,
        "revision": revision,
        "license": "",
        "about": f"{spec.title()} trained on {spec.corpus} for {spec.steps:,} steps.",
        "paper": spec.paper,
        "data": spec.corpus,
        "languages": [],
        "parameters": parameters(network),
        "scores": {},
    }


@dataclass(frozen=True)
class Piece:
    """A stretch of an utterance."""

    utterance: Utterance
    start: float  # in its file
    seconds: float


class Clips:
    """Prepared clips by number; the ones used last stay in memory."""

    def __init__(
        self, utterances: Sequence[Utterance], objective: Objective, shortest: float, most_seconds: float = math.inf
    ) -> None:
        self.objective = objective
        self.pieces: list[Piece] = []
        total = 0.0
        for utterance in utterances:
            count = math.ceil(utterance.seconds / PIECE_SECONDS)
            seconds = utterance.seconds / count
            # A hair of time is added so that rounding to samples cannot make a piece too short.
            if seconds <= shortest + 0.001 or total >= most_seconds:
                continue
            self.pieces += [Piece(utterance, utterance.start + part * seconds, seconds) for part in range(count)]
            total += utterance.seconds
        if not self.pieces:
            raise Refused(
                f"None of the {len(utterances)} clips is as long as {shortest * 1000:.0f} ms, which the network needs."
            )
        self._recent = Recent(self._prepared)

    def __getitem__(self, index: int) -> Tensor:
        return self._recent[index]

    def _prepared(self, index: int) -> Tensor:
        piece = self.pieces[index]
        wave = audio.load(piece.utterance.path, start=piece.start, end=piece.start + piece.seconds).wave
        with torch.no_grad():
            return self.objective.prepare(wave)


def _divide(utterances: list[Utterance], name: str) -> tuple[list[Utterance], list[Utterance]]:
    """Utterances to learn from and to validate on: the corpus' own splits, else every twentieth is held out."""
    if len(utterances) < 2:
        raise Refused(f"{name} has {len(utterances)} utterances; training needs at least two.")
    train = [utterance for utterance in utterances if utterance.split == "train"]
    valid = [utterance for utterance in utterances if utterance.split == "valid"]
    if train and valid:
        return train, valid
    train = train or utterances
    held = set(range(0, len(train), 20))
    return [u for i, u in enumerate(train) if i not in held], [u for i, u in enumerate(train) if i in held]


def _mean_losses(objective: Objective, held: Clips, budget: float, ctx: Context) -> dict[str, float]:
    """The losses on held-out clips, each batch weighted by its clips."""
    seconds = [piece.seconds for piece in held.pieces]
    order = sorted(range(len(seconds)), key=lambda index: seconds[index])
    sums: dict[str, float] = {}
    while order:
        batch = [order.pop()]
        while order and seconds[batch[0]] * (len(batch) + 1) <= budget:
            batch.append(order.pop())
        ctx.check()
        losses = objective([held[index].to(ctx.device) for index in batch])
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(batch)
    return {f"valid_{name}": value / len(seconds) for name, value in sums.items()}
