"""What an analysis is: a RunSpec that measures the rows of an upstream on a corpus, layer by layer."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from engine import corpus, extract, upstream
from engine.errors import Refused
from engine.precision import Precision
from engine.rows import Rows, Unit
from engine.run import Context, Figure, Result, RunSpec, Value

SPLITS = ("train", "valid", "test")


class Analysis(RunSpec):
    """Measures what the layers of an upstream carry. Subclasses write `measure`, or `table` for pairs, heads and clips."""

    family: ClassVar[str] = "analysis"
    needs_label: ClassVar[bool] = True  # the measure is about one label of the rows

    upstream: str = Field(
        "mockingjay-small", description="The speech model that is examined.", json_schema_extra={"choices": "upstreams"}
    )
    corpus: str = Field(
        "spoken:digits", description="The recordings it is examined on.", json_schema_extra={"choices": "corpora"}
    )
    unit: Unit = Field("phone", description="What one row stands for: a frame, a phone, a word or a whole utterance.")
    label: str = Field(
        "phone", description="The label of the rows that is looked for.", json_schema_extra={"choices": "labels"}
    )
    layers: tuple[int, ...] = Field(
        (), description="The layers to measure; empty for all. Layer 0 is the input of the first block."
    )
    per_clip: int = Field(
        20,
        ge=0,
        le=100_000,
        description="Frames drawn from each clip; 0 for all of them.",
        json_schema_extra={"when": {"unit": "frame"}, "advanced": True},
    )
    precision: Precision = Field(
        "float32",
        description="Number format of the upstream's matrix products; how much a lower one changes each layer is recorded.",
        json_schema_extra={"advanced": True},
    )

    def needs(self) -> list[str]:
        """Why this cannot run, as far as it can be known without reading sound or weights."""
        reasons = [*upstream.missing(self.upstream), *corpus.missing(self.corpus)]
        if not reasons:
            last = upstream.find(self.upstream).layers
            reasons += [
                f"{self.upstream} has the layers 0 to {last}; there is no layer {i}." for i in self.layers if i > last
            ]
            reasons += [f"There is no layer {i}; layers count from 0." for i in self.layers if i < 0]
        if self.needs_label and not self.label:
            reasons.append("Choose the label that is looked for.")
        return reasons

    def run(self, ctx: Context) -> Result:
        """Extract the rows, measure each layer, say how to draw it and what made it."""
        rows = self.rows(ctx)
        table = self.table(rows, ctx)
        return Result(table, self.figures(table), self.facts(rows))

    def rows(self, ctx: Context, name: str = "") -> Rows:
        """The rows of this analysis for its upstream, or for another one by name."""
        return extract.rows(
            name or self.upstream,
            self.corpus,
            ctx,
            unit=self.unit,
            per_clip=self.per_clip if self.unit == "frame" else 0,
            seed=self.seed,
            precision=self.precision,
        )

    def table(self, rows: Rows, ctx: Context) -> list[dict[str, Value]]:
        """One line for each measure of each layer."""
        known = labelled(rows, self.label)
        for note in known.notes:
            ctx.note(note)
        lines: list[dict[str, Value]] = []
        layers = chosen(self.layers, rows)
        for done, layer in enumerate(layers):
            ctx.progress(done, len(layers), "measuring")
            values = self.measure(states(rows, layer)[known.kept], known.y, known.groups)
            lines += [{"upstream": self.upstream, "layer": layer, "measure": k, "value": v} for k, v in values.items()]
        return lines

    def measure(self, x: Tensor, labels: Tensor, groups: Tensor) -> dict[str, float]:
        """Numbers for one layer: x (rows, dims), labels (rows,) and groups (rows,), the utterances, as whole numbers."""
        raise Refused(f"The analysis {type(self).__name__} measures nothing: its class writes neither measure nor table.")

    def figures(self, table: Sequence[dict[str, Value]]) -> list[Figure]:
        """A line against the layer for each measure."""
        measures = dict.fromkeys(line["measure"] for line in table)
        return [
            Figure(
                "line",
                f"{str(measure).capitalize()} of {self.label} by layer" if self.needs_label else str(measure).capitalize(),
                x="layer",
                y="value",
                by="upstream",
                where={"measure": measure},
                x_title="layer",
                y_title=str(measure),
            )
            for measure in measures
        ]

    def facts(self, rows: Rows, **more: Any) -> dict[str, Any]:
        """What made the numbers: the revisions behind the names and how much there was."""
        card = upstream.find(self.upstream)
        return {
            "upstream": {"name": card.name, "revision": card.revision, "license": card.license},
            "corpus": {"name": self.corpus, "content": corpus.find(self.corpus).content},
            "rows": len(rows),
            "extraction": rows.facts,
            **more,
        }


class Compared(Analysis):
    """Measures each layer several times, with its 95 % interval, beside baselines drawn as flat lines."""

    baselines: tuple[str, ...] = Field(
        ("fbank",),
        description="Upstreams drawn as flat lines: the best layer of each.",
        json_schema_extra={"choices": "upstreams"},
    )
    repeats: int = Field(
        3, ge=1, le=10, description="Repetitions with other random draws; the band is the 95 % interval of their mean."
    )

    def needs(self) -> list[str]:
        return super().needs() + upstream.missing(*self.baselines)

    @abstractmethod
    def scores(self, rows: Rows, layers: list[int], known: "Labelled", ctx: Context) -> "Scores":
        """The measures of some layers of one upstream; the first measure decides which layer of a baseline is its best."""

    def run(self, ctx: Context) -> Result:
        rows = self.rows(ctx)
        known = labelled(rows, self.label)
        for note in known.notes:
            ctx.note(note)
        layers = chosen(self.layers, rows)
        found = self.scores(rows, layers, known, ctx)
        table = [line for measure in found.values for line in _lines(self.upstream, layers, measure, found)]
        for floor, measure, value in found.floors:
            table += [{"upstream": floor, "layer": layer, "measure": measure, "value": value} for layer in layers]
        for name in self.baselines:
            other = self.rows(ctx, name)
            theirs = self.scores(other, list(range(other.layers)), labelled(other, self.label), ctx)
            best = int(next(iter(theirs.values.values())).mean(0).argmax())
            flat = {measure: np.repeat(values[:, [best]], len(layers), axis=1) for measure, values in theirs.values.items()}
            for measure in flat:
                lines = _lines(name, layers, measure, replace(theirs, values=flat))
                table += [{**line, "best_layer": best} for line in lines]
        facts = self.facts(rows, classes=known.classes, rows_used=len(known.y), notes=known.notes, **found.facts)
        return Result(table, self.figures(table), facts)


@dataclass(frozen=True)
class Scores:
    """What `Compared.scores` found for one upstream."""

    values: dict[str, np.ndarray[Any, Any]]  # measure -> (repeats, layers)
    floors: list[tuple[str, str, float]] = field(default_factory=list)  # what a flat line is called, its measure, its height
    facts: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, tuple[float, float]] = field(default_factory=dict)  # measure -> what it cannot be below and above


# Two-sided 95 % points of Student's t for 1, 2, ... degrees of freedom.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def _lines(name: str, layers: list[int], measure: str, scores: Scores) -> list[dict[str, Value]]:
    """One line for each layer of (repeats, layers), with the 95 % interval of the mean as far as the measure can reach."""
    values = scores.values[measure]
    least, most = scores.limits.get(measure, (-np.inf, np.inf))
    repeats = len(values)
    mean = values.mean(0)
    lines: list[dict[str, Value]] = []
    for place, layer in enumerate(layers):
        line: dict[str, Value] = {"upstream": name, "layer": layer, "measure": measure, "value": float(mean[place])}
        if repeats > 1:
            half = _STUDENT[repeats - 2] * float(values[:, place].std(ddof=1)) / repeats**0.5
            middle = float(mean[place])
            line |= {"value_low": max(least, middle - half), "value_high": min(most, middle + half)}
        lines.append(line)
    return lines


@dataclass(frozen=True)
class Labelled:
    """The rows that have a usable label."""

    kept: np.ndarray[Any, Any]  # (n,) which rows
    y: Tensor  # (n,) class of each kept row
    classes: list[str]
    groups: Tensor  # (n,) utterance of each kept row
    notes: list[str]  # what was left out, in sentences


def labelled(rows: Rows, label: str) -> Labelled:
    """The rows with a label that at least two of them bear; refuses what cannot be measured, with the reason."""
    names = np.asarray(rows.labels(label)).astype(str)
    classes, counts = np.unique(names[names != ""], return_counts=True)
    notes = []
    unlabelled = int((names == "").sum())
    if unlabelled:
        notes.append(f"{unlabelled:,} rows have no {label} and were left out.")
    single = classes[counts < 2]
    if len(single):
        notes.append(f"{len(single)} values of {label} occur only once and were left out: {', '.join(single[:5])}.")
        classes = classes[counts >= 2]
    if len(classes) < 2:
        raise Refused(
            f"The label '{label}' has {len(classes)} value{'s' * (len(classes) != 1)} that occur more than once in these "
            f"{len(names):,} rows; at least two are needed. Choose another label or corpus."
        )
    kept = np.flatnonzero(np.isin(names, classes))
    y = torch.from_numpy(np.searchsorted(classes, names[kept]))
    return Labelled(kept, y, [str(name) for name in classes], utterances(rows)[torch.from_numpy(kept)], notes)


def utterances(rows: Rows) -> Tensor:
    """(n,) a whole number for the utterance of each row."""
    _, numbers = np.unique(rows.index["utterance"].astype(str).to_numpy(), return_inverse=True)
    return torch.from_numpy(numbers)


def chosen(layers: Sequence[int], rows: Rows) -> list[int]:
    """The layers asked for, all when none is named; refuses one that is not there."""
    for layer in layers:
        if not 0 <= layer < rows.layers:
            raise Refused(f"{rows.upstream} has the layers 0 to {rows.layers - 1}; there is no layer {layer}.")
    return sorted(set(layers)) or list(range(rows.layers))


def states(rows: Rows, layer: int) -> Tensor:
    """One layer (rows, dims); refuses values that nothing can be measured on."""
    x = torch.from_numpy(np.array(rows.layer(layer), dtype=np.float32))
    bad = int((~torch.isfinite(x).all(1)).sum())
    if bad:
        raise Refused(f"Layer {layer} of {rows.upstream} has {bad:,} rows with values that are not numbers.")
    if len(x) > 1 and bool((x == x[0]).all()):
        raise Refused(
            f"Layer {layer} of {rows.upstream} gives the same values for all {len(x):,} rows; there is nothing to measure."
        )
    return x


def alike(layers: Iterable[Tensor]) -> list[tuple[list[int], Tensor]]:
    """Layers of one width stacked for a batched solver: their places, and (layers, rows, dims)."""
    groups: dict[int, list[tuple[int, Tensor]]] = {}
    for place, x in enumerate(layers):
        groups.setdefault(x.shape[1], []).append((place, x))
    return [([place for place, _ in group], torch.stack([x for _, x in group])) for group in groups.values()]


def split(rows: Rows, known: Labelled, label: str, seed: int) -> tuple[np.ndarray[Any, Any], str]:
    """train, valid or test for each kept row, and how that was decided, in a sentence.

    A label of the content must hold for speakers never heard, so it is split by speaker: the corpus' own splits where no
    speaker is in two of them. A speaker must be heard before it can be known again, so it is split by utterance.
    """
    index = rows.index.iloc[known.kept]
    own = index["split"].astype(str).to_numpy()
    speakers = index["speaker"].astype(str).to_numpy()
    groups = known.groups.numpy()
    if len(set(zip(speakers, known.y.tolist(), strict=True))) == len(known.classes):  # a name, or another word for it
        return _draw(groups, seed, known.y.numpy()), "Utterances of each speaker were divided among train, valid and test."
    if _is_apart(own, speakers):
        return own, "The corpus' own splits were used; no speaker is in two of them."
    if len(set(speakers)) >= 5:
        return _draw(speakers, seed), "Speakers were divided among train, valid and test."
    if set(own) == set(SPLITS):
        return own, "The corpus' own splits were used; its speakers are too few to be kept apart."
    return _draw(groups, seed), "Utterances were divided among train, valid and test; speakers are too few to be kept apart."


def _is_apart(own: np.ndarray[Any, Any], speakers: np.ndarray[Any, Any]) -> bool:
    if set(own) != set(SPLITS) or "" in set(speakers):
        return False
    of = [set(speakers[own == name]) for name in SPLITS]
    return not (of[0] & of[1] or of[0] & of[2] or of[1] & of[2])


def _draw(groups: np.ndarray[Any, Any], seed: int, strata: np.ndarray[Any, Any] | None = None) -> np.ndarray[Any, Any]:
    """60 % train, 20 % valid, 20 % test of the groups, within each stratum."""
    random = np.random.default_rng(seed)
    names, first, member = np.unique(groups, return_index=True, return_inverse=True)
    kind = np.zeros(len(names), dtype=int) if strata is None else strata[first]
    part = np.empty(len(names), dtype=object)
    for value in np.unique(kind):
        mine = random.permutation(np.flatnonzero(kind == value))
        # At least one group for valid and test each, as long as train keeps one.
        held = max(1, round(0.2 * len(mine))) if len(mine) > 2 else len(mine) - 1
        part[mine] = "train"
        part[mine[:held]] = "test"
        part[mine[held : 2 * held if len(mine) > 2 else held]] = "valid"
    drawn: np.ndarray[Any, Any] = part[member].astype(str)
    return drawn
