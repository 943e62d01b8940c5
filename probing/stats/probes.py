"""Linear probes of every layer at once: multinomial logistic regression with an L2 penalty, solved to its optimum.

A probe that is not converged measures the optimiser, not the layer. The problem is convex, so it is solved by
limited-memory BFGS (Nocedal and Wright, Numerical Optimization, algorithm 7.5) in whitened coordinates, all layers in one
batch. The penalty acts on the weights of standardised features, as in scikit-learn's LogisticRegression after
StandardScaler with C = 1 / (n * strength).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
_MEMORY = 20  # pairs that the solver remembers


@dataclass(frozen=True)
class Probe:
    """A fitted probe for each layer: `x @ weight + bias` are the scores of the classes."""

    weight: Tensor  # (layers, d, classes), for features as they come
    bias: Tensor  # (layers, classes)
    strength: Tensor  # (layers,) L2 strength of the standardised weights
    steps: Tensor  # (layers,) solver steps spent on the chosen strength
    converged: Tensor  # (layers,) whether the loss is within `tolerance` of its optimum

    def scores(self, x: Tensor) -> Tensor:
        """(layers, n, d) -> (layers, n, classes). Differentiable in x."""
        return x.to(self.weight) @ self.weight + self.bias[:, None]

    def predict(self, x: Tensor) -> Tensor:
        """(layers, n, d) -> (layers, n), the class of each row."""
        return self.scores(x).argmax(-1)

    def accuracy(self, x: Tensor, y: Tensor) -> Tensor:
        """(layers,) share of rows whose class is found."""
        return (self.predict(x) == y.to(self.weight.device)).double().mean(-1)


def linear(
    x: Tensor,
    y: Tensor,
    *,
    classes: int | None = None,
    valid: tuple[Tensor, Tensor] | None = None,
    strengths: Sequence[float] = STRENGTHS,
    steps: int = 1000,
    tolerance: float = 1e-6,
    device: torch.device | str | None = None,
) -> Probe:
    """Fit a probe to each layer of x (layers, n, d) and y (n,) whole numbers.

    The strength is chosen for each layer by accuracy on `valid` (x, y), the stronger at a tie; without `valid` give one.
    A layer has converged when the estimated distance of its loss from the optimum (half the squared Newton decrement) is
    under `tolerance` nats. Everything is standardised and whitened by the training rows alone.
    """
    if valid is None and len(strengths) > 1:
        raise ValueError("Choosing among several strengths needs validation rows.")
    device = torch.device(device) if device is not None else x.device
    count = int(y.max()) + 1 if classes is None else classes
    y = y.to(device)
    space = _Space.of(x.to(device, torch.float64))
    held = space.map(valid[0].to(device, torch.float64)) if valid is not None else None
    start: Tensor | None = None
    best: dict[str, Tensor] = {}
    fallen = 0
    for strength in sorted(strengths, reverse=True):  # from strong to weak, each from the one before it
        start, spent, converged = _solve(space, y, count, strength, start, steps, tolerance)
        found = {
            "solution": start,
            "strength": torch.full_like(spent, strength, dtype=torch.float64),
            "steps": spent,
            "converged": converged,
        }
        if held is None or valid is None:
            best = found
            continue
        scores = held @ start[:, 1:] + start[:, :1]
        found["accuracy"] = (scores.argmax(-1) == valid[1].to(device)).double().mean(-1)
        if best:
            better = found["accuracy"] > best["accuracy"]
            fallen = 0 if better.any() else fallen + 1
            found = {k: torch.where(better.view(-1, *[1] * (v.dim() - 1)), v, best[k]) for k, v in found.items()}
        best = found
        if fallen == 2:  # two strengths in a row that no layer likes better: weaker ones only fit the training rows
            break
    weight = space.back @ best["solution"][:, 1:]
    bias = best["solution"][:, 0] - (space.mean @ weight)[:, 0]
    return Probe(weight, bias, best["strength"], best["steps"], best["converged"])


@dataclass(frozen=True)
class _Space:
    """Whitened coordinates of the training rows of each layer."""

    z: Tensor  # (layers, n, r)
    mean: Tensor  # (layers, 1, d)
    back: Tensor  # (layers, d, r): weights in whitened coordinates -> weights of the features as they come
    variance: Tensor  # (layers, r) of the standardised features along each direction

    @classmethod
    def of(cls, x: Tensor) -> "_Space":
        n = x.shape[1]
        mean = x.mean(1, keepdim=True)
        scale = x.std(1, correction=0)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))  # a constant feature stays zero
        z = (x - mean) / scale[:, None]
        variance, rotation = torch.linalg.eigh(z.mT @ z / n)
        keep = min(n - 1, x.shape[2]) or 1
        variance, rotation = variance[:, -keep:], rotation[:, :, -keep:]
        # A direction with next to no variance carries rounding noise: it is left out.
        alive = variance > variance[:, -1:] * 1e-10
        spread = torch.where(alive, variance, torch.ones_like(variance)).rsqrt() * alive
        back = rotation * spread[:, None] / scale[:, :, None]
        return cls((x - mean) @ back, mean, back, torch.where(alive, variance, torch.ones_like(variance)))

    def map(self, x: Tensor) -> Tensor:
        return (x - self.mean) @ self.back


def _solve(
    space: _Space, y: Tensor, classes: int, strength: float, start: Tensor | None, steps: int, tolerance: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (layers, 1 + r, classes) with the bias first, the steps spent and whether each layer converged."""
    z = space.z
    layers, n, rank = z.shape
    penalty = torch.cat([z.new_zeros(layers, 1), strength / space.variance], 1)[..., None]
    # The inverse Hessian of the flat start in these coordinates; what the solver learns refines it.
    scaling = (1 / (1 / classes + penalty)).expand(layers, 1 + rank, classes)
    onehot = torch.nn.functional.one_hot(y, classes).to(z)
    ones = z.new_ones(layers, n, 1)
    design = torch.cat([ones, z], 2)

    def evaluate(w: Tensor) -> tuple[Tensor, Tensor]:
        logits = design @ w
        logarithm = torch.logsumexp(logits, -1, keepdim=True)
        loss = (logarithm[..., 0] - (logits * onehot).sum(-1)).mean(-1) + 0.5 * (penalty * w.square()).sum((1, 2))
        residue = (logits - logarithm).exp_().sub_(onehot)
        return loss, design.mT @ residue / n + penalty * w

    w = z.new_zeros(layers, 1 + rank, classes) if start is None else start.clone()
    loss, gradient = evaluate(w)
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    spent = torch.zeros(layers, dtype=torch.long, device=z.device)
    converged = torch.zeros(layers, dtype=torch.bool, device=z.device)
    stuck = torch.zeros_like(converged)
    for _ in range(steps):
        direction = -_newton(gradient, pairs, scaling)
        slope = (direction * gradient).sum((1, 2))
        converged |= -slope / 2 <= tolerance
        moving = ~(converged | stuck)
        if not moving.any():
            break
        spent += moving
        # Backtracking with the Armijo rule, each layer at its own pace; layers that are done stay where they are.
        length = moving.to(z)
        for _ in range(30):
            trial = w + length[:, None, None] * direction
            trial_loss, trial_gradient = evaluate(trial)
            failed = moving & ~(trial_loss <= loss + 1e-4 * length * slope)
            if not failed.any():
                break
            length = torch.where(failed, length / 2, length)
        stuck |= failed  # no step lowers the loss: rounding is reached
        length = torch.where(failed, torch.zeros_like(length), length)
        taken = (length > 0)[:, None, None]
        step = torch.where(taken, trial - w, torch.zeros_like(w))
        change = torch.where(taken, trial_gradient - gradient, torch.zeros_like(w))
        curvature = (step * change).sum((1, 2))
        pairs = [*pairs[-(_MEMORY - 1) :], (step, change, curvature)]
        w = w + step
        loss = torch.where(length > 0, trial_loss, loss)
        gradient = gradient + change
    return w, spent, converged


def _newton(gradient: Tensor, pairs: list[tuple[Tensor, Tensor, Tensor]], scaling: Tensor) -> Tensor:
    """The gradient times the approximate inverse Hessian, for each layer by itself."""
    q = gradient.clone()
    kept = []
    for step, change, curvature in reversed(pairs):
        weight = torch.where(curvature > 0, 1 / curvature.clamp_min(1e-300), torch.zeros_like(curvature))
        share = weight * (step * q).sum((1, 2))
        q -= share[:, None, None] * change
        kept.append((step, change, weight, share))
    stretch = gradient.new_ones(len(gradient))
    if pairs:
        _, change, curvature = pairs[-1]
        size = (change * scaling * change).sum((1, 2))
        stretch = torch.where(size > 0, curvature / size.clamp_min(1e-300), stretch)
    q = q * scaling * stretch[:, None, None]
    for step, change, weight, share in reversed(kept):
        again = weight * (change * q).sum((1, 2))
        q += (share - again)[:, None, None] * step
    return q
