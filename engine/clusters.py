"""k-means on the device: Lloyd's iterations at the rate of its matrix products, a chunk of rows at a time."""

import math

import torch
from torch import Tensor

CHUNK = 4096  # rows whose distances from all centres are held at once: more leave the caches of a processor


def kmeans(
    x: Tensor,
    clusters: int,
    *,
    seed: int = 0,
    steps: int = 100,
    tolerance: float = 5e-4,
    distances: torch.dtype = torch.float32,
) -> Tensor:
    """Centres (clusters, d) of the rows of x (n, d). An empty cluster takes the row that lies farthest from its centre.

    It ends when a step lowers the mean squared distance by less than the share `tolerance`, or after `steps`. distances: the
    number format of their matrix product; bfloat16 pays only on processors that have it, and is many times slower elsewhere.
    """
    if not 1 <= clusters <= len(x):
        raise ValueError(f"{clusters} clusters need at least as many rows; there are {len(x)}.")
    x = x.float()
    mean = x.mean(0)
    length = torch.cat([(part - mean).square().sum(1) for part in torch.split(x, CHUNK)])
    if not bool(torch.isfinite(length).all()):
        raise ValueError("The rows hold values that are not numbers.")
    centres = _seeds(x, clusters, torch.Generator().manual_seed(seed)) - mean
    lower = distances != torch.float32
    rows, shift = ((x - mean).to(distances), torch.zeros_like(mean)) if lower else (x, mean)
    before = math.inf
    for _ in range(steps):
        nearest, score = _nearest(rows, centres, shift)
        now = float((length + score).mean(dtype=torch.float64))
        if before - now <= tolerance * now:
            break
        before = now
        sums, counts = _sums(x, nearest, clusters)
        centres = sums / counts.clamp_min(1)[:, None] - mean
        empty = (counts == 0).nonzero()[:, 0]
        if len(empty):
            centres[empty] = x[(length + score).topk(len(empty)).indices] - mean
    return centres + mean


def assign(x: Tensor, centres: Tensor) -> Tensor:
    """(n,) the nearest centre of each row."""
    mean = centres.mean(0)
    return _nearest(x.float(), centres - mean, mean)[0]


def inertia(x: Tensor, centres: Tensor) -> float:
    """Mean squared distance of the rows from their nearest centres."""
    x, mean = x.float(), centres.mean(0)
    score = _nearest(x, centres - mean, mean)[1]
    length = torch.cat([(part - mean).square().sum(1) for part in torch.split(x, CHUNK)])
    return float((length + score).mean(dtype=torch.float64))


def _nearest(x: Tensor, centres: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centre of each row, and its squared distance less the squared length of the row.

    The centres are those of `x - shift`, so that a large mean does not drown their differences; (x - shift)'c is taken as
    x'c - shift'c, which spares a copy of the rows.
    """
    constant = centres.square().sum(1) + 2 * centres @ shift
    turned = (-2 * centres).to(x.dtype).T
    best = []
    for part in torch.split(x, CHUNK):
        if x.dtype == torch.float32:
            best.append(torch.addmm(constant, part, turned).min(1))
        else:
            best.append((constant + (part @ turned).float()).min(1))
    return torch.cat([part.indices for part in best]), torch.cat([part.values for part in best])


def _sums(x: Tensor, nearest: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Sum and number of the rows of each cluster, added up in their order: a GPU gives the same bits each time."""
    counts = torch.bincount(nearest, minlength=clusters)
    first = counts.cumsum(0) - counts
    order = torch.argsort(nearest, stable=True)
    return torch.nn.functional.embedding_bag(order, x, first, mode="sum"), counts


def _seeds(x: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Rows that lie apart: k-means++ (Arthur and Vassilvitskii 2007), the best of some draws each time.

    They are drawn from a sample: what they are good for depends on the spread of the rows, not on their number.
    """
    places = torch.randperm(len(x), generator=generator)[: max(2 * clusters, min(50 * clusters, 4096))]
    sample = x[places.to(x.device)]
    sample = sample - sample.mean(0)
    length = sample.square().sum(1)
    apart = torch.addmm(length[:, None] + length, sample, sample.T, alpha=-2).clamp_min_(0)
    chosen = [int(torch.randint(len(sample), (1,), generator=generator))]
    distance = apart[chosen[0]]
    draws = 2 + int(math.log(clusters))
    for _ in range(clusters - 1):
        chance = distance.double().cpu() + 1e-300  # where all that is left repeats what was drawn, any row will do
        drawn = torch.multinomial(chance, draws, replacement=True, generator=generator)
        left = torch.minimum(distance, apart[drawn.to(x.device)])
        best = int(left.sum(1).argmin())
        distance = left[best]
        chosen.append(int(drawn[best]))
    return x[places[torch.tensor(chosen)].to(x.device)]
