"""What a pretext is: a task without labels that an upstream is trained on. The finished upstream is found as job:ID."""

import hashlib
import json
import math
import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import yaml
from pydantic import Field
from torch import Tensor

from engine import audio, corpus, ranks
from engine.corpus import Utterance
from engine.errors import Refused
from engine.nets.describing import parameters
from engine.recent import Recent
from engine.registry import Registry
from engine.run import Context, Figure, Result, Value, write_text
from engine.training.fit import Fit, curve, fit
from engine.training.order import Order
from engine.training.plan import Loss, Plan, Trainee, Training, seed_all, seed_of
from engine.upstream import Card, Tap, Upstream

STEPS = "steps"  # the artifacts folder of the upstream as it was on the way
VALID_SECONDS = 120.0  # sound that the validation loss is measured on


@dataclass(frozen=True)
class Batch:
    """Some prepared clips, and what the draws of each begin with: seed, step and clip, so that company changes nothing."""

    clips: list[tuple[Tensor, ...]]  # what `prepare` gave for each, on the device of the training
    numbers: list[int]  # which clips of the training they are
    seeds: list[int]

    def part(self, number: int = 0) -> list[Tensor]:
        """One of the things that `prepare` gave, of every clip."""
        return [clip[number] for clip in self.clips]

    def generators(self, stream: int = 0) -> list[torch.Generator]:
        """A generator (on the processor) for each clip. Asked for again, it begins again; another stream draws others."""
        return [torch.Generator().manual_seed(seed_of(seed, stream)) for seed in self.seeds]


@dataclass(frozen=True)
class Before:
    """What an objective may look at before its training begins."""

    sound: "Sound"  # the clips to learn from
    ctx: Context
    round: int  # counted from 0
    upstream: Upstream | None  # what the round before has trained


class Objective(Trainee):
    """The loss of a pretext. It holds the network and whatever else is learnt only to be thrown away, such as heads."""

    @abstractmethod
    def prepare(self, wave: Tensor) -> tuple[Tensor, ...]:
        """What the loss takes of one clip, computed once, off the main thread, and kept: features, or the waveform."""

    @abstractmethod
    def forward(self, batch: Batch) -> Loss:
        """The loss of a batch, and the numbers that tell of its health."""

    def hides(self, batch: Batch) -> list[Tensor]:
        """For each clip, which frames of the network are hidden from it in this batch (frames,); nothing where none are."""
        return []

    def facts(self) -> dict[str, Any]:
        """What the result should tell of this objective: how good its targets are."""
        return {}


class Pretext(Training):
    """Trains an upstream on sound alone. Subclasses say what the network is and what it has to guess."""

    family: ClassVar[str] = "pretext"
    leading: ClassVar[tuple[str, ...]] = ("corpus",)
    paper: ClassVar[str] = ""  # where it comes from: "Liu et al. 2020, arXiv:1910.12638"

    corpus: str = Field(
        "spoken:sentences", description="The recordings to learn from.", json_schema_extra={"choices": "corpora"}
    )
    batch_seconds: float = Field(
        144.0, gt=0, le=10_000, description="Sound in one batch, padding included.", json_schema_extra={"unit": "s"}
    )
    piece_seconds: float = Field(
        15.0,
        gt=0,
        le=120,
        description="Longer utterances are cut into pieces of at most this.",
        json_schema_extra={"unit": "s", "advanced": True},
    )
    snapshots: bool = Field(
        False,
        description="Keep the upstream as it was after 0, 1, 2, 4, 8 ... steps too, for analyses of how it learns.",
        json_schema_extra={"advanced": True},
    )

    @property
    def rounds(self) -> int:
        """How often a network is trained, each time with what the one before has learnt."""
        return 1

    def round_plan(self, number: int) -> Plan:
        """How a round goes, counted from 0."""
        return self.plan()

    @abstractmethod
    def network(self) -> Upstream:
        """The network that will be the upstream, with random weights."""

    @abstractmethod
    def objective(self, network: Upstream, before: Before) -> Objective:
        """What the network is trained on."""

    def card(
        self, dims: Sequence[int], hop: int, shortest: int, *, attention: bool = False, taps: Sequence[Tap] = ()
    ) -> Card:
        """The card of the network, for `network` to give to it."""
        return Card(
            name=self.name,
            family=self.title(),
            layers=len(dims) - 1,
            dims=tuple(dims),
            hop=hop,
            shortest=shortest,
            attention=attention,
            taps=tuple(taps),
        )

    def needs(self) -> list[str]:
        return corpus.missing(self.corpus)

    def plan(self) -> Plan:
        return replace(super().plan(), snapshots=self.snapshots)

    def run(self, ctx: Context) -> Result:
        """Train, then leave the upstream in artifacts/upstream, and as it was when it guessed best in artifacts/best."""
        turn: Round | None = None
        table: list[dict[str, Value]] = []
        begun = 0
        for number in range(self.rounds):
            turn = self.start(ctx, number, None if turn is None else turn.network)
            fitted = self._fit(turn, number, begun, ctx)
            told = curve(fitted)
            table += told
            begun += self.round_plan(number).steps
        assert turn is not None
        last = fitted.history[-1]
        revision = self.keep(turn.network, ctx, "upstream", int(last["step"]))
        facts = turn.objective.facts()
        if fitted.best_weights is not None:
            turn.objective.load_state_dict(fitted.best_weights)
            self.keep(turn.network, ctx, "best", fitted.best_step)
        return Result(
            table,
            self._figures(table),
            {
                "upstream": f"job:{ctx.folder.name}",
                "revision": revision,
                "corpus": {"name": self.corpus, "content": corpus.find(self.corpus).content},
                "seconds_of_sound": round(sum(turn.learnt.sound.seconds), 1),
                "weights": sum(weight.numel() for weight in turn.network.parameters()),
                "first_loss": told[0]["loss"],
                "last_loss": last["loss"],
                "last_valid_loss": last.get("valid_loss"),
                "best_step": fitted.best_step,
                "best_valid_loss": fitted.best,
                "pace": fitted.pace,
                **facts,
            },
        )

    def _figures(self, table: list[dict[str, Value]]) -> list[Figure]:
        """A curve for each number that was told: the loss first, then the health of the method, then the optimizer's."""
        told = list(dict.fromkeys(name for line in table for name in line if name not in ("step", "split")))
        order = sorted(told, key=lambda name: (name != "loss", name in ("gradient", "rate")))
        words = {name: name.replace("_", " ") for name in told} | {"gradient": "gradient norm", "rate": "learning rate"}
        return [
            Figure(
                "line", f"{self.title()}: {words[name]}", x="step", y=name, by="split", x_title="step", y_title=words[name]
            )
            for name in order
        ]

    def start(self, ctx: Context, number: int = 0, before: Upstream | None = None) -> "Round":
        """Everything that a round begins with; `before` is what the round before it has trained."""
        ctx.progress(0, self.steps, "reading the corpus")
        found = corpus.find(self.corpus)
        train, valid = _divide(list(found.utterances()), self.corpus)
        if found.left_out and not number:
            ctx.note(found.left_out)
        seed_all(self.seed + number)
        network = self.network()
        shortest = network.card.shortest / audio.SAMPLE_RATE
        sound = Sound(train, shortest, self.piece_seconds)
        held = Sound(valid, shortest, self.piece_seconds, VALID_SECONDS)
        objective = self.objective(network, Before(sound, ctx, number, before))
        order = Order(sound.seconds, self.batch_seconds, self.seed)
        return Round(network, objective, Clips(sound, objective), Clips(held, objective), order)

    def _fit(self, turn: "Round", number: int, begun: int, ctx: Context) -> Fit:
        lengths = turn.learnt.sound.seconds
        return fit(
            turn.objective,
            turn.order,
            lambda clips, step: turn.learnt.batch(clips, self.seed, step, ctx.device),
            self.round_plan(number),
            ctx,
            validate=lambda: _mean_losses(turn.objective, turn.held, self.batch_seconds, self.seed, ctx),
            watch="valid_loss",
            seconds=lambda clips: sum(lengths[clip] for clip in clips),
            keep=lambda step: self._keep_step(turn.network, ctx, step),
            folder=f"checkpoints/round-{number + 1}" if self.rounds > 1 else "checkpoints",
            begun=begun,
        )

    def keep(self, network: Upstream, ctx: Context, place: str, step: int) -> str:
        """Write the upstream as weights, card and recipe; gives its revision, a hash of the weights."""
        from safetensors.torch import save

        folder = ctx.artifact(f"{place}/card.json").parent
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        content = save(weights)  # as bytes: the library does not tell a full disk from other troubles
        revision = hashlib.sha256(content).hexdigest()[:12]
        beside = folder / f".model.safetensors.{os.getpid()}.tmp"
        beside.write_bytes(content)
        beside.replace(folder / "model.safetensors")
        recipe = yaml.safe_dump(self.document, sort_keys=False, allow_unicode=True)
        write_text(folder / "recipe.yaml", recipe)
        # The card last: an upstream is there when its card is.
        write_text(folder / "card.json", json.dumps(card_of(self, network, revision, step), indent=1))
        return revision

    def _keep_step(self, network: Upstream, ctx: Context, step: int) -> None:
        place = f"{STEPS}/{step:09d}"
        if not ctx.artifact(f"{place}/card.json").exists():  # else an attempt before this one has written the same
            self.keep(network, ctx, place, step)


PRETEXTS: Registry[Pretext] = Registry(Pretext, "engine.pretexts")  # type: ignore[type-abstract]


def card_of(spec: Pretext, network: Upstream, revision: str, step: int) -> dict[str, Any]:
    """What a card tells of a trained upstream, as plain JSON."""
    card = network.card
    return {
        "family": spec.title(),
        "spec": spec.document,
        "layers": card.layers,
        "dims": list(card.dims),
        "hop": card.hop,
        "shortest": card.shortest,
        "attention": card.attention,
        "differentiable": card.differentiable,
        "revision": revision,
        "license": "",
        "about": f"{spec.title()} trained on {spec.corpus} for {step:,} steps.",
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


class Sound:
    """Recordings in pieces that a batch can hold, by number."""

    def __init__(
        self, utterances: Sequence[Utterance], shortest: float, longest: float = 15.0, most_seconds: float = math.inf
    ) -> None:
        self.pieces: list[Piece] = []
        total = 0.0
        for utterance in utterances:
            count = math.ceil(utterance.seconds / longest)
            seconds = utterance.seconds / count
            # A hair of time is added so that rounding to samples cannot make a piece too short.
            if seconds <= shortest + 0.001 or total >= most_seconds:
                continue
            self.pieces += [Piece(utterance, utterance.start + part * seconds, seconds) for part in range(count)]
            total += utterance.seconds
        if not self.pieces:
            raise Refused(
                f"None of the {len(utterances)} clips, in pieces of at most {longest:g} s, is as long as "
                f"{shortest * 1000:.0f} ms, which the network needs."
            )

    def __len__(self) -> int:
        return len(self.pieces)

    @property
    def seconds(self) -> list[float]:
        """How long each piece is."""
        return [piece.seconds for piece in self.pieces]

    def wave(self, number: int) -> Tensor:
        """The waveform of a piece."""
        piece = self.pieces[number]
        return audio.load(piece.utterance.path, start=piece.start, end=piece.start + piece.seconds).wave


class Clips:
    """Prepared clips by number; the ones used last stay in memory."""

    def __init__(self, sound: Sound, objective: Objective) -> None:
        self.sound, self.objective = sound, objective
        self._recent = Recent(self._prepared)

    def batch(self, numbers: list[int], seed: int, step: int, device: torch.device) -> Batch:
        """The prepared clips of these numbers, with draws that depend on seed, step and number."""
        clips = [tuple(part.to(device) for part in self._recent[number]) for number in numbers]
        return Batch(clips, numbers, [seed_of(seed, step, number) for number in numbers])

    def _prepared(self, number: int) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return self.objective.prepare(self.sound.wave(number))


@dataclass(frozen=True)
class Round:
    """What one training of a network begins with."""

    network: Upstream
    objective: Objective
    learnt: Clips
    held: Clips  # that the validation loss is measured on
    order: Order


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


def _mean_losses(objective: Objective, held: Clips, budget: float, seed: int, ctx: Context) -> dict[str, float]:
    """The losses on held-out clips: means over all that is guessed in them."""
    seconds = held.sound.seconds
    order = sorted(range(len(seconds)), key=lambda index: seconds[index])
    batches: list[list[int]] = []
    while order:
        batches.append([order.pop()])
        while order and seconds[batches[-1][0]] * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(order.pop())
    sums: dict[str, float] = {}
    # Every process computes some of them; the first batch shows all of them what there is to add up.
    for number, batch in enumerate(batches):
        mine = number % ranks.world() == ranks.rank()
        if number and not mine:
            continue
        if ranks.world() == 1:  # several stop together, between steps
            ctx.check()
        loss = objective(held.batch(batch, seed, 0, ctx.device))
        for name, value in {"loss": loss.total / loss.count, **loss.shown}.items():
            sums[name] = sums.get(name, 0.0) + float(value) * loss.count * mine
        sums["count"] = sums.get("count", 0.0) + loss.count * mine
    totals = dict(zip(sums, ranks.sums(list(sums.values()), ctx.device), strict=True))
    count = totals.pop("count")
    return {f"valid_{name}": total / count for name, total in totals.items()}
