"""What moves the weights of a training, and how fast at each step."""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

Optimizer = Literal["AdamW", "Adam", "Lamb"]
Schedule = Literal["line", "cosine", "steady", "hold"]


def rate_at(step: int, steps: int, highest: float, warm_up: float, schedule: Schedule, fall: float = 0.0) -> float:
    """The learning rate of a step, counted from 0: it rises over a share of the steps, then follows the schedule.

    `hold` stays at the top and falls in a line over the last share `fall` of the steps.
    """
    rising = max(1, round(warm_up * steps)) if warm_up else 0
    if step < rising:
        return highest * (step + 1) / rising
    falling = max(1, round(fall * steps)) if schedule == "hold" and fall else steps - rising
    left = min(1.0, (steps - step) / max(1, falling))
    return highest * {"line": left, "hold": left, "cosine": (1 - math.cos(math.pi * left)) / 2, "steady": 1.0}[schedule]


def make(
    module: nn.Module, kind: Optimizer, rate: float, decay: float, betas: tuple[float, float], epsilon: float
) -> torch.optim.Optimizer:
    """An optimizer of every weight that learns; the decay is for matrices, not for biases and norms.

    It is apart from the gradients (Loshchilov and Hutter 2019) also in Adam, whose own would be added to them and drown
    small ones. So Adam and AdamW are one; papers name either.
    """
    learnt = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in learnt if parameter.dim() > 1], "weight_decay": decay},
        {"params": [parameter for parameter in learnt if parameter.dim() <= 1], "weight_decay": 0.0},
    ]
    if kind == "Lamb":
        return Lamb(groups, lr=rate, betas=betas, eps=epsilon)
    return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=epsilon, fused=True)  # each weight is read once


class Lamb(torch.optim.Optimizer):
    """Adam whose step is as long as the weights of a layer call for (You et al. 2020, arXiv:1904.00962).

    The direction is Adam's plus the decay; its length is the rate times the norm of the weights it moves.
    """

    def __init__(
        self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float, weight_decay: float = 0.0
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, group)

    def _move(self, weight: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(weight), "square": torch.zeros_like(weight)}
        state["step"] += 1
        first, second = group["betas"]
        state["mean"].lerp_(weight.grad, 1 - first)
        state["square"].mul_(second).addcmul_(weight.grad, weight.grad, value=1 - second)
        mean = state["mean"] / (1 - first ** state["step"])
        square = state["square"] / (1 - second ** state["step"])
        way = mean / (square.sqrt() + group["eps"]) + group["weight_decay"] * weight
        size, length = weight.norm(), way.norm()
        # Weights that are all zero still have to move, and where there is no way there is none.
        trust = torch.where((size > 0) & (length > 0), size / length, 1.0)
        weight.sub_(group["lr"] * trust * way)
