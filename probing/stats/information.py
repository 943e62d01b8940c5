"""Information that clusters hold about labels, in nats. Both are whole numbers from 0, one for each row."""

from typing import Literal

import torch
from torch import Tensor


def entropy(labels: Tensor) -> float:
    """Entropy of the observed shares."""
    return float(_entropy(torch.bincount(labels)))


def mutual(clusters: Tensor, labels: Tensor, *, correction: Literal["none", "miller-madow"] = "none") -> float:
    """Mutual information of the observed shares. On few rows it is too high, by about (rows - 1)(columns - 1) / 2n.

    miller-madow: each of the three entropies is corrected by (filled cells - 1) / 2n (Miller 1955).
    """
    table = contingency(clusters, labels)
    value = _entropy(table.sum(0)) + _entropy(table.sum(1)) - _entropy(table)
    if correction == "miller-madow":
        filled = (table.sum(0) > 0).sum() + (table.sum(1) > 0).sum() - (table > 0).sum() - 1
        value = value + filled / (2 * table.sum())
    return float(value)


def adjusted(clusters: Tensor, labels: Tensor) -> float:
    """Mutual information less what chance gives, scaled so that 1 is the most (Vinh et al. 2010, mean of entropies)."""
    table = contingency(clusters, labels)
    rows, columns = table.sum(1), table.sum(0)
    mean = float(_entropy(rows) + _entropy(columns)) / 2
    expected = _expected(rows[rows > 0], columns[columns > 0])
    most = mean - expected
    if abs(most) < 1e-12:
        return 1.0  # one cluster and one label, or a cluster for each row: nothing can differ from chance
    return (mutual(clusters, labels) - expected) / most


def purity(clusters: Tensor, labels: Tensor) -> float:
    """Share of rows that bear the most frequent label of their cluster (Hsu et al. 2021); swapped, cluster purity."""
    table = contingency(clusters, labels)
    return float(table.max(1).values.sum() / table.sum())


def contingency(clusters: Tensor, labels: Tensor) -> Tensor:
    """How often each cluster meets each label."""
    if clusters.shape != labels.shape or clusters.dim() != 1 or not len(labels):
        raise ValueError(
            f"Clusters and labels are one for each row; these are {tuple(clusters.shape)} and {tuple(labels.shape)}."
        )
    width = int(labels.max()) + 1
    cells = torch.bincount(clusters * width + labels, minlength=(int(clusters.max()) + 1) * width)
    return cells.view(-1, width)


def _entropy(counts: Tensor) -> Tensor:
    share = counts[counts > 0].double()
    share = share / share.sum()
    return -(share * share.log()).sum()


def _expected(rows: Tensor, columns: Tensor) -> float:
    """Mean mutual information of all tables with these sums, under the hypergeometric law."""
    n = float(rows.sum())
    total = 0.0

    def logarithm(x: Tensor) -> Tensor:  # of the factorial
        return torch.lgamma(x + 1)

    sizes, repeats = torch.unique(columns.double(), return_counts=True)
    for size, count in zip(*torch.unique(rows.double(), return_counts=True), strict=True):
        cells = torch.arange(1, float(torch.minimum(size, sizes.max())) + 1, dtype=torch.float64, device=rows.device)[
            :, None
        ]
        a, b = size, sizes[None]
        possible = (cells <= torch.minimum(a, b)) & (cells >= a + b - n)
        rest = (n - a - b + cells).clamp_min(0)
        chance = (
            logarithm(a) + logarithm(b) + logarithm(n - a) + logarithm(n - b)
            - torch.lgamma(torch.tensor(n + 1, dtype=torch.float64, device=rows.device))
            - logarithm(cells) - logarithm((a - cells).clamp_min(0)) - logarithm((b - cells).clamp_min(0)) - logarithm(rest)
        )  # fmt: skip
        terms = cells / n * (n * cells / (a * b)).log() * chance.exp() * possible
        total += float(count) * float((terms.sum(0) * repeats).sum())
    return total
