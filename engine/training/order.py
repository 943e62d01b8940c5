"""Which clips make the batch of each step."""

from collections.abc import Sequence

import numpy as np


class Order:
    """Which clips make the batch of each step: a pure function of seed and step, so that a place in the data is a step."""

    def __init__(self, lengths: Sequence[float], budget: float, seed: int) -> None:
        self.lengths = np.asarray(lengths, dtype=float)
        self.budget = budget  # of a batch, padding included, in the unit of the lengths
        self.seed = seed
        self._epochs: list[int] = []  # first step of each epoch met so far
        self._batches: list[list[int]] = []

    def __call__(self, step: int) -> list[int]:
        """Indices of the clips of a step."""
        if not self._epochs or step < self._epochs[-1]:
            self._epochs, self._batches = [0], self._deal(0)
        while step >= self._epochs[-1] + len(self._batches):
            self._epochs.append(self._epochs[-1] + len(self._batches))
            self._batches = self._deal(len(self._epochs) - 1)
        return self._batches[step - self._epochs[-1]]

    def _deal(self, epoch: int) -> list[list[int]]:
        generator = np.random.default_rng((self.seed, epoch))
        # Clips of about one length share a batch; a jitter of ten percent keeps the company changing.
        key = self.lengths * generator.uniform(0.9, 1.1, len(self.lengths))
        batches: list[list[int]] = []
        longest = 0.0
        for index in np.argsort(key, kind="stable"):
            longest = max(longest, self.lengths[index])
            if batches and longest * (len(batches[-1]) + 1) <= self.budget:
                batches[-1].append(int(index))
            else:
                batches.append([int(index)])
                longest = self.lengths[index]
        generator.shuffle(batches)
        return batches
