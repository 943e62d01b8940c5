"""The running mean of the weights of a training, which is often better than the weights themselves."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """The mean of all weights so far; once it remembers long enough, each step it becomes memory * own + rest * theirs."""

    def __init__(self, module: nn.Module, memory: float) -> None:
        self.memory = memory
        self.steps = 0
        self.weights = {name: weight.detach().clone() for name, weight in _learnt(module)}

    @torch.no_grad()
    def follow(self, module: nn.Module) -> None:
        """Take in the weights after a step."""
        self.steps += 1
        rest = 1 - min(self.memory, (self.steps - 1) / self.steps)
        for name, weight in _learnt(module):
            self.weights[name].lerp_(weight, rest)

    @contextmanager
    def lent(self, module: nn.Module) -> Iterator[None]:
        """The module has the mean for its weights inside the block."""
        own = {name: weight.data for name, weight in _learnt(module)}
        try:
            for name, weight in _learnt(module):
                weight.data = self.weights[name]
            yield
        finally:
            for name, weight in _learnt(module):
                weight.data = own[name]

    @torch.no_grad()
    def give(self, module: nn.Module) -> None:
        """Make the mean the weights of the module, for good."""
        for name, weight in _learnt(module):
            weight.copy_(self.weights[name])

    def restore(self, steps: int, weights: Mapping[str, Tensor]) -> None:
        """Go on from a saved state."""
        self.steps = steps
        for name, weight in self.weights.items():
            weight.copy_(weights[name])


def _learnt(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, weight) for name, weight in module.named_parameters() if weight.requires_grad)
