"""Mutual information of clustered rows with a label, after Pasad, Chou and Livescu 2021, and the purities of HuBERT."""

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from engine import clusters, information
from engine.errors import Refused
from engine.rows import Rows
from engine.run import Context, Figure, Value
from probing.compared import Compared, Scores
from probing.labelled import Labelled, split, states

MEASURES = {
    "PNMI": "share of the label's entropy",
    "adjusted": "adjusted mutual information",
    "Miller-Madow": "corrected share of the label's entropy",
    "label purity": "share of rows with their cluster's label",
    "cluster purity": "share of rows in their label's cluster",
    "information": "nats",
}
VARIANT = "k-means from k-means++ on the training rows as they come; plug-in information of the held-out rows, in nats"
MUCH = 0.1  # PNMI of shuffled labels from which on it is said


class MutualInformation(Compared):
    """Clusters the rows of each layer with k-means and tells how much the clusters say about the label.

    Clusters are found on the training rows; the others are counted, after Pasad, Chou and Livescu 2021. The purities are
    those of HuBERT (Hsu et al. 2021). The share of the label's entropy (PNMI) grows by chance alone with the number of
    clusters and with few rows: the adjusted value takes that out, and shuffled labels draw the floor.
    """

    clusters: int = Field(
        50,
        ge=2,
        le=10_000,
        description="Clusters of each layer, the same for all. Published: 500 for phones and 5,000 for words of 7,500 rows "
        "each, 100 and 500 for frames.",
    )

    def figures(self, table: Sequence[dict[str, Value]]) -> list[Figure]:
        return [
            Figure("line", f"{measure}: clusters and {self.label}", x="layer", y="value", by="upstream",
                   where={"measure": measure}, x_title="layer", y_title=title)
            for measure, title in MEASURES.items()
        ]  # fmt: skip

    def scores(self, rows: Rows, layers: list[int], known: Labelled, ctx: Context) -> Scores:
        values = {measure: np.zeros((self.repeats, len(layers))) for measure in MEASURES}
        floors: dict[str, list[float]] = {"PNMI": [], "label purity": [], "cluster purity": []}
        facts: dict[str, object] = {"variant": VARIANT, "clusters": self.clusters}
        for repeat in range(self.repeats):
            seed = self.seed + repeat
            parts, facts["split"] = split(rows, known, self.label, seed)
            train, held = (torch.from_numpy(np.flatnonzero(mask)) for mask in (parts == "train", parts != "train"))
            if len(train) < 2 * self.clusters or not len(held):
                raise Refused(
                    f"{len(train):,} training rows are too few for {self.clusters} clusters; use at most {len(train) // 2} "
                    "clusters or a larger corpus."
                )
            facts["rows_train_held_out"] = [len(train), len(held)]
            labels = known.y[held]
            entropy = information.entropy(labels)
            if not entropy > 0:
                raise Refused(
                    f"All {len(held):,} held-out rows have the same {self.label}, so clusters can say nothing about it. Use "
                    "a larger corpus."
                )
            facts["label_entropy_nats"] = entropy
            shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
            for place, layer in enumerate(layers):
                ctx.progress(repeat * len(layers) + place, self.repeats * len(layers), f"clustering {rows.upstream}")
                x = states(rows, layer)
                centres = clusters.kmeans(x[known.kept[train]].to(ctx.device), self.clusters, seed=seed)
                found = clusters.assign(x[known.kept[held]].to(ctx.device), centres).cpu()
                for measure, value in _measured(found, labels, entropy).items():
                    values[measure][repeat, place] = value
                floors["PNMI"].append(information.mutual(found, shuffled) / entropy)
                floors["label purity"].append(information.purity(found, shuffled))
                floors["cluster purity"].append(information.purity(shuffled, found))
        level = {measure: float(np.mean(found)) for measure, found in floors.items()}
        if level["PNMI"] > MUCH and rows.upstream == self.upstreams[0]:
            ctx.note(
                f"{self.clusters:,} clusters and {len(known.classes)} values of {self.label} are many for {len(held):,} "
                f"held-out rows: shuffled labels already give a PNMI of {level['PNMI']:.2f}. Read the adjusted value, or "
                "use fewer clusters or a larger corpus."
            )
        limits = {"PNMI": (0.0, 1.0), "label purity": (0.0, 1.0), "cluster purity": (0.0, 1.0), "information": (0.0, np.inf)}
        return Scores(values, [("shuffled labels", *floor) for floor in level.items()], facts, limits)


def _measured(found: Tensor, labels: Tensor, entropy: float) -> dict[str, float]:
    nats = information.mutual(found, labels)
    return {
        "PNMI": nats / entropy,
        "adjusted": information.adjusted(found, labels),
        "Miller-Madow": information.mutual(found, labels, correction="miller-madow") / entropy,
        "label purity": information.purity(found, labels),
        "cluster purity": information.purity(labels, found),
        "information": nats,
    }
