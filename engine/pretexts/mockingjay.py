"""Mockingjay: hidden frames are reconstructed from both sides (Liu, Yang, Chi, Hsu, Lee, ICASSP 2020)."""

from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from engine import upstream
from engine.nets.encoder import Encoder, SpectralEncoder
from engine.nets.masking import alter, spans
from engine.pretext import Objective, Pretext


class Mockingjay(Pretext):
    """Hides stretches of the features from a Transformer and has it guess them; what it learns on the way is the upstream.

    In each clip 15 % of the frames are hidden: eight times in ten they are zero, once in ten other frames of the clip, once
    in ten left as they are. The loss is the mean absolute error on them. Sizes and rates are those of the base model.
    """

    paper: ClassVar[str] = "Liu et al. 2020, arXiv:1910.12638"

    features: str = Field(
        "fbank",
        description="What is hidden and reconstructed: the last layer of this upstream.",
        json_schema_extra={"choices": "upstreams", "advanced": True},
    )
    reduce: int = Field(1, ge=1, le=10, description="Frames that are stacked into one, which makes the network quicker.")
    blocks: int = Field(3, ge=1, le=48, description="Transformer blocks.")
    width: int = Field(768, ge=8, le=4096, description="Size of a layer.")
    heads: int = Field(12, ge=1, le=64, description="Attention heads; the width is a multiple of them.")
    inner: int = Field(
        3072, ge=8, le=16384, description="Size of the feed-forward nets.", json_schema_extra={"advanced": True}
    )
    dropout: float = Field(
        0.1, ge=0, lt=1, description="Share of values dropped while learning.", json_schema_extra={"advanced": True}
    )
    share: float = Field(0.15, gt=0, le=0.9, description="Share of the frames that are hidden.")
    span: int = Field(7, ge=1, le=100, description="Frames hidden in a row.")

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"the width {self.width} is not a multiple of the {self.heads} heads")
        return self

    def needs(self) -> list[str]:
        return super().needs() + upstream.missing(self.features)

    def network(self) -> Encoder:
        return SpectralEncoder(
            self.features,
            reduce=self.reduce,
            width=self.width,
            blocks=self.blocks,
            heads=self.heads,
            inner=self.inner,
            dropout=self.dropout,
        )

    def objective(self, network: Encoder) -> Objective:
        assert isinstance(network, SpectralEncoder)
        return Reconstruction(network, self.share, self.span)


class Reconstruction(Objective):
    """Mean absolute error on the hidden frames."""

    def __init__(self, network: SpectralEncoder, share: float, span: int) -> None:
        super().__init__()
        self.network = network
        self.share, self.span = share, span
        width = network.dims[-1]
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, eps=1e-12), nn.Linear(width, network.inputs)
        )

    def prepare(self, wave: Tensor) -> Tensor:
        return self.network.features([wave])[0]

    def forward(self, clips: list[Tensor]) -> dict[str, Tensor]:
        lengths = torch.tensor([len(clip) for clip in clips])
        target = pad_sequence(clips, batch_first=True)
        hidden = spans(lengths, self.share, self.span)
        seen = alter(target, hidden.to(target.device), lengths)
        states, _ = self.network.transformer(seen, lengths)
        guess = self.head(states[-1])
        return {"loss": functional.l1_loss(guess[hidden], target[hidden])}
