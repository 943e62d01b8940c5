"""What a task is: a small head on an upstream, trained on labels and scored on speech it has not heard."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from engine import audio, corpus, extract, upstream
from engine.corpus import Utterance
from engine.errors import Refused
from engine.recent import Recent
from engine.run import Context, Figure, Result, Value
from engine.training.fit import curve, fit
from engine.training.order import Order
from engine.training.plan import Loss, Trainee, Training, seed_all
from engine.upstream import Card, Upstream

SPLITS = ("train", "valid", "test")


class Task(Training):
    """Trains a head on an upstream and scores it. Subclasses say what the head is, its loss and its scores."""

    family: ClassVar[str] = "task"
    leading: ClassVar[tuple[str, ...]] = ("upstream", "corpus", "label", "mode", "layer")
    primary: ClassVar[str]  # the score that decides which weights are best
    higher_is_better: ClassVar[bool] = True
    mean_is_enough: ClassVar[bool] = False  # the head needs no more of a clip than the mean of its frames

    upstream: str = Field(
        "hubert-small", description="The speech model underneath.", json_schema_extra={"choices": "upstreams"}
    )
    corpus: str = Field("spoken:commands", description="The labelled recordings.", json_schema_extra={"choices": "corpora"})
    label: str = Field("command", description="The label to learn.", json_schema_extra={"choices": "labels"})
    mode: Literal["weighted sum", "one layer", "fine-tune"] = Field(
        "weighted sum",
        description="Frozen with learnt weights over the layers, frozen with one layer, or the upstream trained along.",
    )
    layer: int = Field(
        -1, ge=-1, description="The layer that is used; -1 for the last.", json_schema_extra={"when": {"mode": "one layer"}}
    )
    steps: int = Training.again("steps", 200_000)
    batch: int = Field(32, ge=1, le=4096, description="Clips in a batch.")
    clip: float = Training.again("clip", 1.0)

    @abstractmethod
    def head(self, dim: int, classes: int) -> nn.Module:
        """A module that is called with states (batch, frames, dim) and the valid frames of each clip."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What is minimised."""

    @abstractmethod
    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """The scores of a split; one is called what `primary` says."""

    def needs(self) -> list[str]:
        reasons = [*upstream.missing(self.upstream), *corpus.missing(self.corpus)]
        if not reasons:
            card = upstream.find(self.upstream)
            if self.mode == "one layer" and self.layer > card.layers:
                reasons.append(f"{card.name} has the layers 0 to {card.layers}; there is no layer {self.layer}.")
            if self.mode != "one layer" and len(set(card.dims)) > 1:
                reasons.append(f"The layers of {card.name} differ in width, so they cannot be summed; choose one layer.")
        return reasons

    def run(self, ctx: Context) -> Result:
        """Train on the train split, keep the weights that are best on the valid split, score them on the test split."""
        examples = Examples.of(self.corpus, self.label)
        for note in examples.notes:
            ctx.note(note)
        seed_all(self.seed)
        card = upstream.find(self.upstream)
        learner = Learner(self, card, len(examples.classes))
        inputs = self._inputs(card, examples, ctx)

        def batch(indices: Sequence[int]) -> Batch:
            targets = torch.tensor([examples.targets[index] for index in indices])
            return Batch([inputs[index].to(ctx.device) for index in indices], targets.to(ctx.device))

        def scores(split: str) -> dict[str, float]:
            outputs, targets = [], []
            for start in range(0, len(examples.of_split[split]), self.batch):
                ctx.check()
                part = batch(examples.of_split[split][start : start + self.batch])
                outputs.append(learner.outputs(part).float().cpu())
                targets.append(part.targets.cpu())
            joined, truth = torch.cat(outputs), torch.cat(targets)
            found = {"loss": float(self.loss(joined, truth)), **self.score(joined, truth)}
            return {f"{split}_{name}": value for name, value in found.items()}

        train = examples.of_split["train"]
        order = Order([1.0] * len(train), self.batch, self.seed)
        fitted = fit(
            learner,
            order,
            lambda places, step: batch([train[place] for place in places]),
            self.plan(),
            ctx,
            validate=lambda: scores("valid"),
            watch=f"valid_{self.primary}",
            higher_is_better=self.higher_is_better,
        )
        assert fitted.best_weights is not None
        learner.load_state_dict(fitted.best_weights)
        with torch.no_grad():
            final = {**scores("valid"), **scores("test")}
        ctx.metric(self.steps, **final)
        weights = learner.layer_weights()
        table: list[dict[str, Value]] = [{"part": "curve", **line} for line in curve(fitted)]
        for split in ("valid", "test"):
            mine = {name.removeprefix(f"{split}_"): value for name, value in final.items() if name.startswith(split)}
            table.append({"part": "score", "split": split, "step": fitted.best_step, **mine})
        table += [{"part": "weights", "layer": layer, "weight": weight} for layer, weight in enumerate(weights)]
        figures = [
            Figure("line", f"{self.title()}: {self.primary}", x="step", y=self.primary, by="split",
                   where={"part": "curve", "split": "valid"}, x_title="step", y_title=self.primary),
            Figure("line", f"{self.title()}: loss", x="step", y="loss", by="split", where={"part": "curve"}, x_title="step"),
        ]  # fmt: skip
        if weights:
            title = f"What {self.title().lower()} takes from each layer"
            figures.append(Figure("bar", title, x="layer", y="weight", where={"part": "weights"}, x_title="layer"))
        return Result(table, figures, self._facts(card, examples, final, fitted.best_step))

    def _inputs(self, card: Card, examples: "Examples", ctx: Context) -> "Sequence[Tensor] | Waves | FrozenStates":
        if self.mode == "fine-tune":
            return Waves(examples.utterances)
        if self.mean_is_enough:
            return self._means(card, examples, ctx)
        return FrozenStates(upstream.load(self.upstream, ctx.device), examples.utterances, self._layers(card))

    def _means(self, card: Card, examples: "Examples", ctx: Context) -> Sequence[Tensor]:
        """The mean over frames of every layer: (layers, 1, dim) for each utterance, computed once and kept on disk."""
        rows = extract.rows(self.upstream, self.corpus, ctx, unit="utterance", precision=self.precision)
        layers = self._layers(card)
        found = torch.stack([torch.from_numpy(rows.layer(i)[:, : card.dims[i]].copy()) for i in layers], 1)
        place = {str(name): i for i, name in enumerate(rows.index["utterance"])}
        missing = sum(utterance.id not in place for utterance in examples.utterances)
        if missing:
            raise Refused(f"{missing} clips of {self.corpus} are too short for {card.name}; leave them out of the corpus.")
        return [found[place[utterance.id]][:, None] for utterance in examples.utterances]

    def _layers(self, card: Card) -> list[int]:
        return [self.layer % len(card.dims)] if self.mode == "one layer" else list(range(len(card.dims)))

    def _facts(self, card: Card, examples: "Examples", final: dict[str, float], best_step: int) -> dict[str, Any]:
        return {
            "upstream": {"name": card.name, "revision": card.revision, "license": card.license},
            "corpus": {"name": self.corpus, "content": corpus.find(self.corpus).content},
            "classes": examples.classes,
            "clips": {split: len(examples.of_split[split]) for split in SPLITS},
            "primary": self.primary,
            "higher_is_better": self.higher_is_better,
            "best_step": best_step,
            "notes": examples.notes,
            **final,
        }


@dataclass(frozen=True)
class Batch:
    """States (layers, frames, dim), or waveforms, of some clips, and what they are."""

    clips: list[Tensor]
    targets: Tensor


@dataclass(frozen=True)
class Examples:
    """The utterances that bear a label, as whole numbers."""

    utterances: list[Utterance]
    targets: list[int]
    classes: list[str]
    of_split: dict[str, list[int]]
    notes: list[str]

    @classmethod
    def of(cls, name: str, label: str) -> "Examples":
        known = list(corpus.find(name).utterances())
        labels = [{"speaker": u.speaker, "text": u.text, **u.labels}.get(label, "") for u in known]
        if not any(labels):
            there = sorted({key for u in known for key in u.labels} | {"speaker", "text"})
            raise Refused(f"No utterance of {name} has a label '{label}'. There is: {', '.join(there)}.")
        classes = sorted({bears for u, bears in zip(known, labels, strict=True) if bears and u.split == "train"})
        if len(classes) < 2:
            raise Refused(f"The training clips of {name} bear {len(classes)} values of '{label}'; at least two are needed.")
        kept = [(u, bears) for u, bears in zip(known, labels, strict=True) if bears in classes]
        notes = []
        if len(kept) < len(known):
            notes.append(
                f"{len(known) - len(kept)} clips were left out: they bear no {label}, or one that is not trained on."
            )
        of_split = {split: [i for i, (u, _) in enumerate(kept) if u.split == split] for split in SPLITS}
        for split, members in of_split.items():
            if not members:
                raise Refused(f"{name} has no {split} clips with the label '{label}'; a task needs train, valid and test.")
        return cls([u for u, _ in kept], [classes.index(bears) for _, bears in kept], classes, of_split, notes)


class Learner(Trainee):
    """What is trained: the head, the weights over layers, and the upstream where it is fine-tuned."""

    def __init__(self, task: Task, card: Card, classes: int) -> None:
        super().__init__()
        self.task = task
        # A fine-tuned upstream is this training's own: the one that others use must stay as it is.
        self.upstream: Upstream | None = card.open(card) if task.mode == "fine-tune" else None
        self.weights = nn.Parameter(torch.zeros(len(card.dims))) if task.mode != "one layer" else None
        self.head = task.head(card.dims[task.layer if task.mode == "one layer" else -1], classes)

    def forward(self, batch: Batch) -> Loss:
        clips = len(batch.clips)
        return Loss(self.task.loss(self.outputs(batch), batch.targets) * clips, clips)

    def outputs(self, batch: Batch) -> Tensor:
        """What the head says of each clip."""
        if self.upstream is not None:
            hidden = self.upstream.encode(batch.clips)
            states, lengths = torch.stack(hidden.states, 1), hidden.lengths
        else:
            lengths = torch.tensor([clip.shape[1] for clip in batch.clips])
            padded = pad_sequence([clip.transpose(0, 1) for clip in batch.clips], batch_first=True)
            states = padded.transpose(1, 2)
        if self.weights is not None:
            states = states * self.weights.softmax(0)[None, :, None, None]
        mixed = states.sum(1)  # of a single layer where one was chosen
        outputs: Tensor = self.head(mixed, lengths.to(mixed.device))
        return outputs

    def layer_weights(self) -> list[float]:
        """The share of each layer; empty where there is but one."""
        return self.weights.softmax(0).tolist() if self.weights is not None else []


class Waves:
    """The waveform of each utterance."""

    def __init__(self, utterances: Sequence[Utterance]) -> None:
        self.utterances = utterances

    def __getitem__(self, index: int) -> Tensor:
        utterance = self.utterances[index]
        return audio.load(utterance.path, start=utterance.start, end=utterance.end).wave


class FrozenStates:
    """Chosen states (layers, frames, dim) of each utterance; the ones used last stay in memory.

    Each clip is encoded alone, so that its states are the same bits whatever was asked for before.
    """

    def __init__(self, model: Upstream, utterances: Sequence[Utterance], layers: list[int]) -> None:
        self.model, self.layers = model, layers
        self.waves = Waves(utterances)
        self._recent = Recent(self._encoded)

    def __getitem__(self, index: int) -> Tensor:
        return self._recent[index][0]

    def _encoded(self, index: int) -> tuple[Tensor]:
        with torch.no_grad():
            clip = self.model.encode([self.waves[index].to(self.model.device)]).clip(0)
            return (torch.stack([clip[layer] for layer in self.layers]).cpu(),)
