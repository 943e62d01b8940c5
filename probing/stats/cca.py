"""Canonical correlations between two views (rows, dims) of the same things, and the scores that are made of them.

CCA: Hotelling 1936. SVCCA: Raghu et al. 2017. PWCCA: Morcos, Raghu and Bengio 2018. All means are over the directions of the
narrower view. A direction of a view whose variance is at most `epsilon` times that of its strongest is left out.
On rows that also set the directions the scores are far too high: show `held_out`, and `null_level` beside it.
"""

import math
from typing import Literal

import torch
from torch import Tensor

EPSILON = 1e-10


def correlations(x: Tensor, y: Tensor, *, epsilon: float = EPSILON) -> Tensor:
    """The canonical correlations of two views, largest first."""
    _check(x, y)
    a, b = whiten(x, epsilon=epsilon), whiten(y, epsilon=epsilon)
    found: Tensor = torch.linalg.svdvals((_centred(x) @ a).mT @ (_centred(y) @ b))
    return found.clamp(max=1.0)


def mean(x: Tensor, y: Tensor, *, epsilon: float = EPSILON) -> float:
    """Mean canonical correlation, on the rows that set the directions."""
    return float(correlations(x, y, epsilon=epsilon).mean())


def svcca(
    x: Tensor,
    y: Tensor,
    *,
    keep: float = 0.99,
    energy: Literal["variance", "singular"] = "variance",
    centred: bool = True,
    epsilon: float = EPSILON,
) -> float:
    """Mean canonical correlation of the strongest directions of each view.

    So many are kept that they hold the share `keep` of the variance (sum of squared singular values) or of the sum of the
    singular values, the direction that reaches it included. Not centred: the singular values are those of the raw rows.
    """
    return mean(_strongest(x, keep, energy, centred), _strongest(y, keep, energy, centred), epsilon=epsilon)


def pwcca(
    x: Tensor,
    y: Tensor,
    *,
    weights: Literal["x", "y", "mean"] = "x",
    variant: Literal["morcos", "layerwise", "svcca2019"] = "morcos",
    epsilon: float = EPSILON,
) -> float:
    """Canonical correlations weighted by how much of a view each direction explains.

    morcos: the definition, weights sum_j |<h_i, x_j>| with canonical variates h_i and centred activations x_j. The others
    repeat what released code computes: svcca2019 (google/svcca) leaves the inverse square root out of the directions, and
    both it and layerwise (Pasad et al. 2021) orthonormalise the directions again after adding the means and take raw
    activations for the weights, layerwise only as many dimensions of them as there are directions.
    """
    _check(x, y)
    if weights == "mean":
        one = pwcca(x, y, weights="x", variant=variant, epsilon=epsilon)
        return (one + pwcca(x, y, weights="y", variant=variant, epsilon=epsilon)) / 2
    if weights == "y":
        x, y = y, x
    x, y = x.double(), y.double()
    invert = whiten if variant == "morcos" else _root
    a, b = invert(x, epsilon=epsilon), invert(y, epsilon=epsilon)
    u, rho, _ = torch.linalg.svd((_centred(x) @ a).mT @ (_centred(y) @ b), full_matrices=False)
    if variant == "morcos":
        alpha = (_centred(x) @ a @ u).mT @ _centred(x)
    else:
        # The released code divides a covariance by its largest entry, which matters here because means are added after.
        largest = (_centred(x).mT @ _centred(x)).abs().max().sqrt()
        directions = u if variant == "svcca2019" else largest * a @ u
        basis = torch.linalg.qr(_centred(x) @ directions + x.mean(0)[: len(rho)]).Q
        alpha = basis.mT @ (x if variant == "svcca2019" else x[:, : len(rho)])
    alpha = alpha.abs().sum(1)
    return float((alpha * rho.clamp(max=1.0)).sum() / alpha.sum())


def held_out(
    x_train: Tensor,
    y_train: Tensor,
    x_test: Tensor,
    y_test: Tensor,
    *,
    score: Literal["mean", "pwcca"] = "mean",
    epsilon: float = EPSILON,
) -> float:
    """Directions from the training rows, their correlations on the test rows; these may be negative and are not clipped.

    pwcca weighs them by the share of x_test that each direction explains, after Morcos et al.
    """
    _check(x_train, y_train)
    _check(x_test, y_test)
    a, b = whiten(x_train, epsilon=epsilon), whiten(y_train, epsilon=epsilon)
    return project(
        _centred(x_train) @ a, _centred(y_train) @ b, _centred(x_test) @ a, _centred(y_test) @ b, score=score, raw=x_test
    )


def project(
    x_train: Tensor,
    y_train: Tensor,
    x_test: Tensor,
    y_test: Tensor,
    *,
    score: Literal["mean", "pwcca"] = "mean",
    raw: Tensor,
) -> float:
    """`held_out` of views that are whitened already (by the training rows) and centred; `raw` is x_test as it was."""
    u, _, v = torch.linalg.svd(x_train.mT @ y_train, full_matrices=False)
    p, q = x_test @ u, y_test @ v.mT
    p, q = p - p.mean(0), q - q.mean(0)
    size = p.norm(dim=0) * q.norm(dim=0)
    rho = torch.where(size > 0, (p * q).sum(0) / size.clamp_min(1e-300), torch.zeros_like(size))
    if score == "mean":
        return float(rho.mean())
    alpha = ((p / p.norm(dim=0).clamp_min(1e-300)).mT @ _centred(raw)).abs().sum(1)
    return float((alpha * rho).sum() / alpha.sum())


def null_level(p: int, q: int, n: int) -> float:
    """`mean` of independent Gaussian views p and q wide, by the law of Wachter (1980)."""
    p, q = min(p, q), max(p, q)
    if n - 1 <= p + q:
        return 1.0
    c, d = p / (n - 1), q / (n - 1)
    low, high = ((math.sqrt(d * (1 - c)) + sign * math.sqrt(c * (1 - d))) ** 2 for sign in (-1, 1))
    # Squared correlations have the density sqrt((high - r)(r - low)) / (2 pi c r (1 - r)); the substitution
    # r = middle + half cos(t) takes the corners out of it.
    t = (torch.arange(20_000, dtype=torch.float64) + 0.5) * math.pi / 20_000
    half = (high - low) / 2
    r = (high + low) / 2 + half * t.cos()
    weight = (half * t.sin()).square() / (r * (1 - r))
    return float((r.sqrt() * weight).sum() / weight.sum())


def whiten(x: Tensor, *, epsilon: float = EPSILON) -> Tensor:
    """(d, r): centred rows times this are orthonormal columns."""
    x = _centred(x)
    variance, rotation = torch.linalg.eigh(x.mT @ x)
    alive = variance > epsilon * variance[-1]
    directions: Tensor = rotation[:, alive] / variance[alive].sqrt()
    return directions


def _root(x: Tensor, *, epsilon: float) -> Tensor:
    """(d, d) the symmetric inverse square root, which `whiten` is but for a rotation."""
    x = _centred(x)
    variance, rotation = torch.linalg.eigh(x.mT @ x)
    alive = variance > epsilon * variance[-1]
    root: Tensor = (rotation[:, alive] / variance[alive].sqrt()) @ rotation[:, alive].mT
    return root


def _strongest(x: Tensor, keep: float, energy: Literal["variance", "singular"], centred: bool) -> Tensor:
    x = _centred(x) if centred else x.double()
    u, size, _ = torch.linalg.svd(x, full_matrices=False)
    share = size.square() if energy == "variance" else size
    count = int((share.cumsum(0) / share.sum() < keep - 1e-12).sum()) + 1
    strongest: Tensor = u[:, :count] * size[:count]
    return strongest


def _centred(x: Tensor) -> Tensor:
    x = x.double()
    return x - x.mean(0)


def _check(x: Tensor, y: Tensor) -> None:
    if x.dim() != 2 or y.dim() != 2 or len(x) != len(y):
        raise ValueError(f"Two views have the same rows; these are {tuple(x.shape)} and {tuple(y.shape)}.")
