"""What pretexts that learn from another upstream, their teacher, have in common."""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from engine import upstream
from engine.objectives.networks import OnSound
from engine.upstream import SAMPLE_RATE, Upstream


class Taught(OnSound):
    """A pretext whose targets are layers of any upstream."""

    teacher: str = Field(
        "hf:facebook/hubert-base-ls960",
        description="The upstream that is learnt from.",
        json_schema_extra={"choices": "upstreams"},
    )

    def needs(self) -> list[str]:
        reasons = super().needs() + upstream.missing(self.teacher)
        if reasons:
            return reasons
        ours, theirs = self._hop() / SAMPLE_RATE, upstream.find(self.teacher).hop_seconds
        if abs(ours - theirs) > 1e-9:
            reasons.append(
                f"{self.teacher} gives a frame each {1000 * theirs:g} ms, but the network to be trained each "
                f"{1000 * ours:g} ms. Choose another front, number of stacked frames or teacher."
            )
        return reasons

    def taught_by(self, device: torch.device) -> Upstream:
        """The teacher, which drops nothing and learns nothing."""
        card = upstream.find(self.teacher)
        return card.open(card).to(device).eval().requires_grad_(False)

    def _hop(self) -> int:
        if self.front == "waveform":
            return self.shape().hop
        card = upstream.find(self.features)
        return round(card.hop_seconds * SAMPLE_RATE) * self.reduce


def heard(teacher: Upstream, wave: Tensor) -> list[Tensor]:
    """All states (frames, dim) that a teacher makes of a clip."""
    # A teacher that needs more sound than the network hears silence behind a clip that is too short for it.
    long_enough = functional.pad(wave, (0, max(0, teacher.card.shortest - len(wave))))
    states = teacher.encode([long_enough.to(teacher.device)]).clip(0)
    return [state.float().to(wave.device) for state in states]
