"""What moves the weights of a training, and how fast at each step."""

import math
from typing import Literal

import torch
from torch import nn

Optimizer = Literal["AdamW", "Adam"]
Schedule = Literal["line", "cosine", "steady"]


def rate_at(step: int, steps: int, highest: float, warm_up: float, schedule: Schedule) -> float:
    """The learning rate of a step, counted from 0: it rises over a share of the steps, then follows the schedule."""
    rising = max(1, round(warm_up * steps)) if warm_up else 0
    if step < rising:
        return highest * (step + 1) / rising
    left = (steps - step) / max(1, steps - rising)
    return highest * {"line": left, "cosine": (1 - math.cos(math.pi * left)) / 2, "steady": 1.0}[schedule]


def make(
    module: nn.Module, kind: Optimizer, rate: float, decay: float, betas: tuple[float, float], epsilon: float
) -> torch.optim.Optimizer:
    """An optimizer of every weight that learns; the decay is for matrices, not for biases and norms."""
    learnt = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in learnt if parameter.dim() > 1], "weight_decay": decay},
        {"params": [parameter for parameter in learnt if parameter.dim() <= 1], "weight_decay": 0.0},
    ]
    chosen = torch.optim.AdamW if kind == "AdamW" else torch.optim.Adam
    return chosen(groups, lr=rate, betas=betas, eps=epsilon)
