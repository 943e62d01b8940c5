"""What an analysis is: a RunSpec that measures the rows of upstreams on a corpus, layer by layer."""

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field, field_validator
from torch import Tensor

from engine import corpus, extract, upstream
from engine.errors import Refused
from engine.precision import Precision
from engine.registry import Registry
from engine.rows import Rows, Unit
from engine.run import Context, Figure, Result, RunSpec, Value
from probing import offered
from probing.labelled import chosen, labelled, states


class Analysis(RunSpec):
    """Measures what the layers of upstreams carry. Subclasses write `measure`, or `table` for pairs, heads and clips."""

    family: ClassVar[str] = "analysis"
    needs_label: ClassVar[bool] = True  # the measure is about one label of the rows
    takes_numbers: ClassVar[bool] = False  # that label may be a number too, such as those of the sound

    upstreams: tuple[str, ...] = Field(
        ("hubert-small",),
        min_length=1,
        description="The speech models that are examined; several are drawn over each other.",
        json_schema_extra={"choices": "upstreams"},
    )
    corpus: str = Field(
        "spoken:digits", description="The recordings they are examined on.", json_schema_extra={"choices": "corpora"}
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

    @field_validator("upstreams")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Named twice, examined once."""
        return tuple(dict.fromkeys(value))

    def needs(self) -> list[str]:
        """Why this cannot run, as far as it can be known without reading sound or weights."""
        reasons = [*upstream.missing(*self.upstreams), *corpus.missing(self.corpus)]
        if not reasons:
            names = ", ".join(self.upstreams)
            last = max(upstream.find(name).layers for name in self.upstreams)
            reasons += [f"{names} has the layers 0 to {last}; there is no layer {i}." for i in self.layers if i > last]
            reasons += [f"There is no layer {i}; layers count from 0." for i in self.layers if i < 0]
            label = self.label if self.needs_label else ""
            reasons += offered.unmet(self.corpus, self.unit, label, numbers=self.takes_numbers)
        if self.needs_label and not self.label:
            reasons.append("Choose the label that is looked for.")
        return reasons

    def run(self, ctx: Context) -> Result:
        """Extract the rows, measure each layer of each upstream, say how to draw it and what made it."""
        every = [self.rows(ctx, name) for name in self.upstreams]
        table = [line for rows in every for line in self.table(rows, ctx)]
        return Result(table, self.figures(table), self.facts(every))

    def rows(self, ctx: Context, name: str, *, unit: Unit | None = None) -> Rows:
        """The rows of this analysis for one upstream, at its unit or at another."""
        unit = unit or self.unit
        if unit == "utterance" and (raw := upstream.find(name).raw):
            ctx.note(
                f"{name} is normalised over each clip, which leaves next to nothing in a row of a whole one; see {raw}."
            )
        return extract.rows(
            name,
            self.corpus,
            ctx,
            unit=unit,
            per_clip=self.per_clip if unit == "frame" else 0,
            seed=self.seed,
            precision=self.precision,
        )

    def table(self, rows: Rows, ctx: Context) -> list[dict[str, Value]]:
        """One line for each measure of each layer of one upstream."""
        known = labelled(rows, self.label)
        for note in known.notes:
            ctx.note(note)
        lines: list[dict[str, Value]] = []
        layers = chosen(self.layers, rows)
        for done, layer in enumerate(layers):
            ctx.progress(done, len(layers), f"measuring {rows.upstream}")
            values = self.measure(states(rows, layer)[known.kept], known.y, known.groups)
            lines += [{"upstream": rows.upstream, "layer": layer, "measure": k, "value": v} for k, v in values.items()]
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

    def facts(self, every: Sequence[Rows], **more: Any) -> dict[str, Any]:
        """What made the numbers: the revisions behind the names and how much there was."""
        about: dict[str, Any] = {}
        for rows in every:
            card = upstream.find(rows.upstream)
            key = "upstream" if len(every) == 1 else f"upstream {rows.upstream}"
            about[key] = {"name": card.name, "revision": card.revision, "license": card.license}
            about[key.replace("upstream", "extraction", 1)] = rows.facts
        return {
            **about,
            "corpus": {"name": self.corpus, "content": corpus.find(self.corpus).content},
            "rows": len(every[0]),
            **more,
        }


ANALYSES: Registry[RunSpec] = Registry(RunSpec, "probing.analyses")  # type: ignore[type-abstract]
