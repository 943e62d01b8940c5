"""k-means on the device: Lloyd's iterations from k-means++ seeds (Arthur and Vassilvitskii 2007)."""

import torch
from torch import Tensor


def kmeans(x: Tensor, clusters: int, *, seed: int = 0, steps: int = 50) -> Tensor:
    """Centres (clusters, d) of the rows of x (n, d). An empty cluster takes the row that lies farthest from its centre."""
    if clusters > len(x):
        raise ValueError(f"{clusters} clusters need at least as many rows; there are {len(x)}.")
    generator = torch.Generator().manual_seed(seed)
    centres = _seeds(x, clusters, generator)
    before = None
    for _ in range(steps):
        nearest, distance = _nearest(x, centres)
        if before is not None and torch.equal(nearest, before):
            break
        before = nearest
        counts = torch.bincount(nearest, minlength=clusters)
        sums = torch.zeros_like(centres).index_add_(0, nearest, x)
        centres = sums / counts.clamp_min(1)[:, None].to(x)
        empty = (counts == 0).nonzero()[:, 0]
        if len(empty):
            centres[empty] = x[distance.topk(len(empty)).indices]
    return centres


def assign(x: Tensor, centres: Tensor) -> Tensor:
    """(n,) the nearest centre of each row."""
    return _nearest(x, centres)[0]


def _nearest(x: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    length = centres.square().sum(1)
    best = [(length - 2 * part @ centres.mT).min(1) for part in torch.split(x, 16_384)]
    nearest = torch.cat([part.indices for part in best])
    return nearest, torch.cat([part.values for part in best]) + x.square().sum(1)


def _seeds(x: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    # Seeds are drawn from a sample: their quality depends on the spread of the rows, not on their number.
    sample = x[torch.randperm(len(x), generator=generator)[: max(20 * clusters, 1000)].to(x.device)]
    first = int(torch.randint(len(sample), (1,), generator=generator))
    chosen = [sample[first]]
    distance = (sample - sample[first]).square().sum(1)
    for _ in range(clusters - 1):
        weight = distance.clamp_min(0).double().cpu()
        if not weight.sum() > 0:
            weight = torch.ones_like(weight)
        pick = int(torch.multinomial(weight, 1, generator=generator))
        chosen.append(sample[pick])
        distance = torch.minimum(distance, (sample - sample[pick]).square().sum(1))
    return torch.stack(chosen)
