"""Labels that the sound gives by itself, guessed from every frame of a network: what pretexts of several tasks share.

The labels are the tracks of `engine.acoustics`. Their weights may come from a pretext selection (Zaiem, Parcollet and Essid
2021; Zaiem, Parcollet, Essid and Heba 2022), which finds those that depend least on the sound once a class is known.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from engine import acoustics
from engine.audio import SAMPLE_RATE
from engine.errors import AuscultError, Refused
from engine.job import JobStore
from engine.pretext import Pretext, Sound
from engine.training.plan import Loss, seed_of

SELECTION = "pretext_selection"
SAMPLED = 120.0  # seconds of sound from which it is learnt how widely a target spreads

Track = Literal["pitch", "loudness", "voicing", "alpha ratio", "zero crossings", "rasta", "harmonicity"]


class Guessing(Pretext):
    """A pretext that also, or only, guesses labels of the sound."""

    pseudo_labels: tuple[Track, ...] = Field((), description="Labels of the sound that each frame has to give away.")
    weights: str = Field(
        "",
        description="How much each of them counts: 'pitch 2, voicing 0.5' with 1 for the others, or job:ID of a finished "
        "pretext selection.",
        json_schema_extra={"advanced": True},
    )
    weighed_by: Literal["softmax", "sparsemax"] = Field(
        "sparsemax",
        description="Which weights of the pretext selection are taken.",
        json_schema_extra={"advanced": True},
    )

    @field_validator("pseudo_labels")
    @classmethod
    def _once(cls, value: tuple[Track, ...]) -> tuple[Track, ...]:
        """Named twice, guessed once."""
        return tuple(dict.fromkeys(value))

    @model_validator(mode="after")
    def _weights_are_understood(self) -> Self:
        if not self.weights.startswith("job:"):
            by_hand(self.weights, self.pseudo_labels)
        return self

    def needs(self) -> list[str]:
        try:
            self.shares()
        except AuscultError as error:
            return [*super().needs(), str(error)]
        return super().needs()

    def shares(self) -> dict[str, float]:
        """How much each pseudo-label counts."""
        if self.weights.startswith("job:"):
            return selected(self.weights.removeprefix("job:"), self.weighed_by, self.pseudo_labels)
        return by_hand(self.weights, self.pseudo_labels)


def by_hand(text: str, names: Sequence[str]) -> dict[str, float]:
    """The weight of each name from words such as "pitch 2, voicing 0.5"; one that is not mentioned counts 1."""
    shares = dict.fromkeys(names, 1.0)
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = part.rpartition(" ")
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not name.strip() or not 0 <= weight < math.inf:
            raise ValueError(f"the weight '{part}' is not a pseudo-label and a number from 0 on, such as 'pitch 2'")
        if name.strip() not in shares:
            raise ValueError(f"a weight is given for '{name.strip()}', which is not among the pseudo-labels")
        shares[name.strip()] = weight
    if shares and not any(shares.values()):
        raise ValueError("all pseudo-labels have the weight 0")
    return shares


def selected(id: str, by: str, names: Sequence[str]) -> dict[str, float]:
    """The weights that a finished pretext selection found for these names."""
    job = JobStore().get(id)
    run = job.document["run"]
    if run != SELECTION:
        raise Refused(f"Job {job.id} is no pretext selection but runs {run}, so it has no weights of pseudo-labels.")
    found: dict[str, float] = job.result().facts["weights"][by]
    for name in names:
        if name not in found:
            raise Refused(f"Job {job.id} has not weighed {name}; it knows {', '.join(found)}.")
    left = [name for name, weight in found.items() if weight > 0 and name not in names]
    if left:
        raise Refused(
            f"Job {job.id} gives weight to {', '.join(left)} too. Name it among the pseudo-labels, or weigh by hand."
        )
    return {name: found[name] for name in names}


class PseudoLabels(nn.Module):
    """Heads that guess tracks of the sound, and the weighted error of their guesses in deviations of each track."""

    def __init__(
        self, shares: Mapping[str, float], width: int, hop: int, sound: Sound, seed: int, *, hidden: int = 0, power: int = 1
    ) -> None:
        super().__init__()
        self.names, self.hop, self.power = tuple(shares), hop, power
        self.weights = tuple(shares.values())
        self.standard = Standard.of(sound, seed, lambda wave: self.targets(wave, max(1, len(wave) // hop)))
        self.head = head(width, len(shares), hidden)

    def targets(self, wave: Tensor, frames: int) -> Tensor:
        """(frames, labels): the tracks of a clip at the network's rate, in their own units; NaN where one is undefined."""
        made = acoustics.tracks(wave, self.names)
        edges = np.arange(frames + 1, dtype=np.float64) * (self.hop / SAMPLE_RATE)
        columns = [acoustics.over(made[name].double().numpy(), edges[:-1], edges[1:]) for name in self.names]
        return torch.from_numpy(np.stack(columns, axis=1)).float()

    def forward(self, states: Tensor, targets: Tensor) -> Loss:
        """The loss of guessing targets (frames, labels) from states (frames, width); it counts frames.

        Where a track is undefined, as pitch is in a hiss, nothing is guessed.
        """
        wanted = self.standard(targets)
        known = wanted.isfinite()
        errors = (self.head(states).float() - wanted.nan_to_num()).abs().pow(self.power)
        sums = torch.where(known, errors, 0.0).sum(0)
        each = sums.detach() / known.sum(0).clamp_min(1)
        shown = {f"{name.replace(' ', '_')}_error": each[place] for place, name in enumerate(self.names)}
        return Loss((sums * sums.new_tensor(self.weights)).sum(), float(len(states)), shown)


class Standard(nn.Module):
    """Brings targets to mean 0 and variance 1, as they spread over the sound that is learnt from."""

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.mean: Tensor
        self.deviation: Tensor

    @classmethod
    def of(cls, sound: Sound, seed: int, make: Callable[[Tensor], Tensor]) -> "Standard":
        """Learnt from what `make` gives (frames, targets) for clips drawn with the seed: two minutes of sound."""
        order = torch.randperm(len(sound), generator=torch.Generator().manual_seed(seed_of(seed, 0)))
        taken, seconds = [], 0.0
        for number in order.tolist():
            if seconds >= SAMPLED:
                break
            taken.append(make(sound.wave(number)).double())
            seconds += sound.pieces[number].seconds
        values = torch.cat(taken)
        known = values.isfinite()
        count = known.sum(0).clamp_min(1)
        mean = values.nan_to_num().sum(0) / count
        variance = torch.where(known, (values - mean).square(), 0.0).sum(0) / count
        moves = variance > 1e-12
        return cls(mean.float(), torch.where(moves, variance, 1.0).sqrt().float())

    def forward(self, targets: Tensor) -> Tensor:
        return (targets - self.mean) / self.deviation


def head(width: int, targets: int, hidden: int) -> nn.Module:
    """What guesses: a linear layer, or one hidden layer before it as in PASE+ (Ravanelli et al. 2020)."""
    if not hidden:
        return nn.Linear(width, targets)
    return nn.Sequential(nn.Linear(width, hidden), nn.PReLU(hidden), nn.Linear(hidden, targets))
