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
    """Mean mutual information of all tables with these sums, under the hypergeometric law.

    Only cells within eight standard deviations and 16 of their mean are counted: the others hold less than 1e-15.
    """
    n = int(rows.sum())
    factorial = torch.lgamma(torch.arange(1, n + 2, dtype=torch.float64, device=rows.device))  # its logarithm, of 0 to n
    b, repeats = torch.unique(columns, return_counts=True)
    total = 0.0
    for a, count in zip(*(each.tolist() for each in torch.unique(rows, return_counts=True)), strict=True):
        mean = a * b.double() / n
        reach = (8 * (mean * (1 - a / n) * (1 - b.double() / n)).sqrt() + 16).ceil().long()
        first = (mean.long() - reach).clamp_min(1)
        cells = first + torch.arange(int(2 * reach.max()) + 2, device=rows.device)[:, None]
        possible = (cells <= b.clamp(max=a)) & (cells >= a + b - n)
        cells = torch.where(possible, cells, (a + b - n).clamp_min(1))
        chance = (
            factorial[a] + factorial[b] + factorial[n - a] + factorial[n - b] - factorial[n]
            - factorial[cells] - factorial[a - cells] - factorial[b - cells] - factorial[n - a - b + cells]
        )  # fmt: skip
        terms = cells.double() / n * (n * cells / (a * b.double())).log() * chance.exp() * possible
        total += count * float((terms.sum(0) * repeats).sum())
    return total
