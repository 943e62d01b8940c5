"""How a label is read off rows: what it is, which rows train, choose and test in each repeat, and the control task."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from engine import clusters
from engine.errors import Refused
from engine.rows import Rows
from engine.run import Context
from probing import soundlabels
from probing.labelled import Labelled, labelled, split, states, utterances

if TYPE_CHECKING:
    from pandas import DataFrame

MANY = 20  # values that a label has more of when it is taken for a number
ROWS_A_TYPE = 20  # of the control task where a clustering makes the types: so many on average

ReadAs = Literal["auto", "classes", "numbers"]


def known(rows: Rows, label: str, ctx: Context, read_as: ReadAs = "auto") -> Labelled:
    """The rows with a usable label; where it is a number `y` has float64 and there are no classes.

    A number is a label that the sound gives by itself, or one of the corpus whose values are all numbers, more than twenty,
    and not all whole, for whole ones may be names.
    """
    there = label in rows.index.columns and bool((rows.index[label] != "").any())
    if not there and label in soundlabels.NAMES and read_as != "classes":
        return _numbered(rows, label, soundlabels.values(rows, label, ctx))
    if there and read_as != "classes":
        texts = rows.labels(label)
        values = _parsed(texts)
        if values is not None and (read_as == "numbers" or _looks_like_numbers(values)):
            return _numbered(rows, label, values)
        if read_as == "numbers":
            raise Refused(f"The label '{label}' is not made of numbers: '{texts[texts != ''][0]}' is one of its values.")
    return labelled(rows, label)


def _parsed(texts: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any] | None":
    try:
        return np.array([float(text) if text else np.nan for text in texts])
    except ValueError:
        return None


def _looks_like_numbers(values: "np.ndarray[Any, Any]") -> bool:
    some = values[np.isfinite(values)]
    return len(np.unique(some)) > MANY and bool((some % 1 != 0).any())


def _numbered(rows: Rows, label: str, values: "np.ndarray[Any, Any]") -> Labelled:
    kept = np.flatnonzero(np.isfinite(values))
    notes = []
    if len(kept) < len(values):
        notes.append(f"{len(values) - len(kept):,} rows have no {label} and were left out.")
    if len(np.unique(values[kept])) < 2:
        raise Refused(f"The label '{label}' is the same number in all rows that have it; there is nothing to tell apart.")
    return Labelled(kept, torch.from_numpy(values[kept]), [], utterances(rows)[torch.from_numpy(kept)], notes)


@dataclass(frozen=True)
class Fold:
    """Which of the kept rows train, choose and test in one repeat."""

    train: Tensor
    valid: Tensor
    test: Tensor
    seed: int


def folds(rows: Rows, known: Labelled, label: str, repeats: int, seed: int) -> tuple[list[Fold], str]:
    """One for each repeat, and how they were made, in a sentence. Where there are several each trains on nine tenths."""
    made, said = [], ""
    for number in range(seed, seed + repeats):
        parts, said = split(rows, known, label, number)
        train, valid, test = (torch.from_numpy(np.flatnonzero(parts == name)) for name in ("train", "valid", "test"))
        if repeats > 1 and len(train):
            names = torch.unique(known.groups[train])
            generator = torch.Generator().manual_seed(number)
            drawn = names[torch.randperm(len(names), generator=generator)[: max(1, round(0.9 * len(names)))]]
            train = train[torch.isin(known.groups[train], drawn)]
        if known.classes:
            seen = torch.unique(known.y[train])
            valid, test = (part[torch.isin(known.y[part], seen)] for part in (valid, test))
        if len(torch.unique(known.y[train])) < 2 or not len(valid) or not len(test):
            raise Refused(
                f"{len(train)} training, {len(valid)} validation and {len(test)} test rows with classes in common are too "
                "few for a probe. Use a larger corpus, or one with more speakers."
            )
        made.append(Fold(train, valid, test, number))
    return made, said


def types(rows: Rows, known: Labelled, seed: int) -> tuple[Tensor | None, str]:
    """The type of each kept row for the control task: finer than the label, and met again in held-out rows."""
    index = rows.index.iloc[known.kept].reset_index(drop=True)
    if rows.unit == "phone" and "phone" in index:
        numbers = np.unique(_triples(index), return_inverse=True)[1]
        return torch.from_numpy(numbers), f"{int(numbers.max()) + 1} phones in their context"
    count = min(200, len(known.y) // ROWS_A_TYPE)
    if count <= max(1, len(known.classes)):
        return None, ""
    x = states(rows, 0)[known.kept]
    x = (x - x.mean(0)) / x.std(0).clamp_min(1e-6)
    return clusters.assign(x, clusters.kmeans(x, count, seed=seed)), f"{count} k-means clusters of layer 0"


def _triples(index: "DataFrame") -> "np.ndarray[Any, Any]":
    ordered = index.sort_values(["utterance", "start"])
    before = ordered.groupby("utterance")["phone"].shift(1).fillna("")
    after = ordered.groupby("utterance")["phone"].shift(-1).fillna("")
    triples: np.ndarray[Any, Any] = (before + " " + ordered["phone"] + " " + after).sort_index().astype(str).to_numpy()
    return triples


def control_labels(types: Tensor, y: Tensor, seed: int) -> Tensor:
    """One random class or number for each type of row, drawn as often as they occur (Hewitt and Liang 2019)."""
    generator = torch.Generator().manual_seed(seed)
    count = int(types.max()) + 1
    if y.is_floating_point():
        return y[torch.randint(len(y), (count,), generator=generator)][types]
    share = torch.bincount(y).double()
    return torch.multinomial(share, count, replacement=True, generator=generator)[types]
