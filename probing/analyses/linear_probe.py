"""Linear probes with their controls: how much of a label can be read from each layer by a linear map."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from engine.rows import Rows
from pydantic import Field
from torch import Tensor

from engine import upstream
from engine.errors import AuscultError, Refused
from engine.run import Context, Figure, Result, Value
from probing.analysis import Analysis, Labelled, alike, chosen, labelled, split, states
from probing.stats import clusters, probes

# Two-sided 95 % points of Student's t for 1, 2, ... degrees of freedom.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


class LinearProbe(Analysis):
    """Trains a linear classifier on every layer and tells how well it reads the label on held-out rows.

    Beside the accuracy stand the share of the most frequent class, the accuracy on a control task (each type of row bears
    one random label: Hewitt and Liang 2019), their difference, called selectivity, and the same probe on the baselines.
    """

    baselines: tuple[str, ...] = Field(
        ("fbank",),
        description="Upstreams drawn as flat lines: the best layer of each.",
        json_schema_extra={"choices": "upstreams"},
    )
    repeats: int = Field(
        3, ge=1, le=10, description="Repetitions with other draws of the training rows; the band is their 95 % interval."
    )
    control: bool = Field(True, description="Train the control task too, for selectivity.")

    def needs(self) -> list[str]:
        reasons = super().needs()
        for name in self.baselines:
            try:
                upstream.find(name)
            except AuscultError as error:
                reasons.append(str(error))
        return reasons

    def run(self, ctx: Context) -> Result:
        rows = self.rows(ctx)
        known = labelled(rows, self.label)
        for note in known.notes:
            ctx.note(note)
        types, kind = _types(rows, known, self.seed)
        layers = chosen(self.layers, rows)
        scores, facts = self._probe(rows, layers, known, types, ctx)
        table = [line for measure in scores for line in _lines(self.upstream, layers, measure, scores[measure])]
        floor = float(np.mean(facts.pop("floor")))
        table += [
            {"upstream": "most frequent class", "layer": layer, "measure": "accuracy", "value": floor} for layer in layers
        ]
        for name in self.baselines:
            other = self.rows(ctx, name)
            if len(other) != len(rows):
                other_known, other_types = labelled(other, self.label), None  # another frame rate: other frames, same label
            else:
                other_known, other_types = known, types
            found, _ = self._probe(other, list(range(other.layers)), other_known, other_types, ctx)
            for measure, values in found.items():
                best = int(values.mean(0).argmax())
                flat = np.repeat(values[:, best : best + 1], len(layers), axis=1)
                table += [{**line, "state": best} for line in _lines(name, layers, measure, flat)]
        return Result(
            table,
            self.figures(table),
            self.facts(rows, classes=known.classes, notes=known.notes, control_types=kind, **facts),
        )

    def figures(self, table: Sequence[dict[str, Value]]) -> list[Figure]:
        measures = dict.fromkeys(line["measure"] for line in table)
        titles = {"accuracy": f"{self.label} read by a linear probe", "control": "The control task"}
        titles["selectivity"] = f"Selectivity for {self.label}"
        return [
            Figure(
                "line",
                titles[str(measure)].capitalize(),
                x="layer",
                y="value",
                by="upstream",
                where={"measure": measure},
                x_title="layer",
                y_title=f"{measure}, share of held-out rows",
            )
            for measure in measures
        ]

    def _probe(
        self, rows: Rows, layers: list[int], known: Labelled, types: Tensor | None, ctx: Context
    ) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
        """Measure -> (repeats, layers), and what there is to say about the solving."""
        measures = ["accuracy", "control", "selectivity"] if self.control and types is not None else ["accuracy"]
        found = {measure: np.zeros((self.repeats, len(layers))) for measure in measures}
        facts: dict[str, Any] = {"floor": [], "strengths": {}, "converged": True, "solver_steps": 0}
        stacks = alike(states(rows, layer)[known.kept] for layer in layers)
        for repeat in range(self.repeats):
            seed = self.seed + repeat
            parts, facts["split"] = split(rows, known, self.label, seed)
            train, valid, test = _parts(parts, known, self.repeats, seed)
            facts["rows_train_valid_test"] = [len(train), len(valid), len(test)]
            facts["floor"].append(float((known.y[test] == known.y[train].mode().values).double().mean()))
            for places, x in stacks:
                ctx.progress(repeat * len(layers) + places[0], self.repeats * len(layers), f"probing {rows.upstream}")
                probe = _fit(x, known.y, len(known.classes), train, valid, ctx)
                accuracy = probe.accuracy(x[:, test].to(ctx.device), known.y[test]).cpu().numpy()
                found["accuracy"][repeat, places] = accuracy
                facts["converged"] = facts["converged"] and bool(probe.converged.all())
                facts["solver_steps"] = max(facts["solver_steps"], int(probe.steps.max()))
                facts["strengths"].update(
                    {str(layers[place]): float(s) for place, s in zip(places, probe.strength, strict=True)}
                )
                if "control" in found and types is not None:
                    random = control_labels(types, known.y, seed)
                    probe = _fit(x, random, len(known.classes), train, valid, ctx)
                    control = probe.accuracy(x[:, test].to(ctx.device), random[test]).cpu().numpy()
                    found["control"][repeat, places] = control
                    found["selectivity"][repeat, places] = accuracy - control
        return found, facts


def control_labels(types: Tensor, y: Tensor, seed: int) -> Tensor:
    """One random class for each type of row, drawn as often as the classes occur (Hewitt and Liang 2019)."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.bincount(y).double()
    return torch.multinomial(share, int(types.max()) + 1, replacement=True, generator=generator)[types]


def _fit(x: Tensor, y: Tensor, classes: int, train: Tensor, valid: Tensor, ctx: Context) -> probes.Probe:
    ctx.check()
    return probes.linear(x[:, train], y[train], classes=classes, valid=(x[:, valid], y[valid]), device=ctx.device)


def _parts(parts: np.ndarray[Any, Any], known: Labelled, repeats: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows to train, choose and test on. Where there are repeats each trains on nine tenths of the training utterances."""
    train, valid, test = (torch.from_numpy(np.flatnonzero(parts == name)) for name in ("train", "valid", "test"))
    if repeats > 1 and len(train):
        names = torch.unique(known.groups[train])
        generator = torch.Generator().manual_seed(seed)
        drawn = names[torch.randperm(len(names), generator=generator)[: max(1, round(0.9 * len(names)))]]
        train = train[torch.isin(known.groups[train], drawn)]
    seen = torch.unique(known.y[train])
    valid, test = (part[torch.isin(known.y[part], seen)] for part in (valid, test))
    if len(seen) < 2 or not len(valid) or not len(test):
        raise Refused(
            f"{len(train)} training, {len(valid)} validation and {len(test)} test rows with classes in common are too few "
            "for a probe. Use a larger corpus, or one with more speakers."
        )
    return train, valid, test


def _types(rows: Rows, known: Labelled, seed: int) -> tuple[Tensor, str]:
    """The type of each kept row for the control task: finer than the label, and met again in held-out rows."""
    index = rows.index.iloc[known.kept].reset_index(drop=True)
    if rows.unit == "phone" and "phone" in index:
        ordered = index.sort_values(["utterance", "start"])
        before = ordered.groupby("utterance")["phone"].shift(1).fillna("")
        after = ordered.groupby("utterance")["phone"].shift(-1).fillna("")
        triples = (before + " " + ordered["phone"] + " " + after).sort_index()
        numbers = np.unique(triples.astype(str).to_numpy(), return_inverse=True)[1]
        return torch.from_numpy(numbers), f"{int(numbers.max()) + 1} phones in their context"
    x = states(rows, 0)[known.kept]
    x = (x - x.mean(0)) / x.std(0).clamp_min(1e-6)
    count = max(2, min(200, len(x) // 20))
    return clusters.assign(x, clusters.kmeans(x, count, seed=seed)), f"{count} k-means clusters of layer 0"


def _lines(name: str, layers: list[int], measure: str, values: np.ndarray[Any, Any]) -> list[dict[str, Value]]:
    """One line for each layer from (repeats, layers), with the 95 % interval of the mean."""
    repeats = len(values)
    mean = values.mean(0)
    half = _STUDENT[repeats - 2] * values.std(0, ddof=1) / repeats**0.5 if repeats > 1 else np.zeros_like(mean)
    return [
        {
            "upstream": name,
            "layer": layer,
            "measure": measure,
            "value": float(mean[place]),
            **(
                {"value_low": float(mean[place] - half[place]), "value_high": float(mean[place] + half[place])}
                if repeats > 1
                else {}
            ),
        }
        for place, layer in enumerate(layers)
    ]
