"""Mockingjay: hidden frames are reconstructed from both sides (Liu, Yang, Chi, Hsu, Lee, ICASSP 2020)."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from engine.nets.masking import alter, spans
from engine.nets.spectral_encoder import SpectralEncoder
from engine.pretext import Batch, Before, Objective
from engine.pretext_networks import OnFeatures
from engine.train import Loss, Training
from engine.upstream import Upstream


class Mockingjay(OnFeatures):
    """Hides stretches of the features from a Transformer and has it guess them; what it learns on the way is the upstream.

    In each clip 15 % of the frames are hidden: eight times in ten they are zero, once in ten other frames of the clip, once
    in ten left as they are. The loss is the mean absolute error on them. Sizes and rates are those of the base model.
    """

    paper: ClassVar[str] = "Liu et al. 2020, arXiv:1910.12638"

    steps: int = Training.again("steps", 1_000_000)
    rate: float = Training.again("rate", 2e-4)
    share: float = Field(0.15, gt=0, le=0.9, description="Share of the frames that are hidden.")
    span: int = Field(7, ge=1, le=100, description="Frames hidden in a row.")

    def objective(self, network: Upstream, before: Before) -> Objective:
        assert isinstance(network, SpectralEncoder)
        return Reconstruction(network, self.share, self.span)


class Reconstruction(Objective):
    """Mean absolute error on the hidden frames."""

    def __init__(self, network: SpectralEncoder, share: float, span: int) -> None:
        super().__init__()
        self.network = network
        self.share, self.span = share, span
        width = network.width
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, eps=1e-12), nn.Linear(width, network.channels)
        )

    def prepare(self, wave: Tensor) -> tuple[Tensor]:
        return (self.network.local([wave])[0],)

    def hides(self, batch: Batch) -> list[Tensor]:
        return [
            spans(len(clip), self.share, self.span, generator)
            for clip, generator in zip(batch.part(), batch.generators(), strict=True)
        ]

    def forward(self, batch: Batch) -> Loss:
        clips, hides = batch.part(), self.hides(batch)
        seen = [alter(clip, hidden, draw) for clip, hidden, draw in zip(clips, hides, batch.generators(1), strict=True)]
        hidden = torch.cat(hides).to(clips[0].device)
        states = self.network.contextual(self.network.projected(torch.cat(seen)), [len(clip) for clip in clips])
        guess = self.head(states[-1][hidden])
        return Loss.mean(functional.l1_loss(guess, torch.cat(clips)[hidden], reduction="none"))
