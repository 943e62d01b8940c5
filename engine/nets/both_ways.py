"""wav2vec's convolutions with two aggregators, one for the past and one for the future (Kawakami et al. 2020)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.nets.foresight import Foreseer, OverFeatures, padded
from engine.nets.wav2vec import Encoder, Shape, aggregated, aggregator, framed, tapped
from engine.upstream import Card, Hidden


class BothWays(Foreseer):
    """The network. State 0 comes out of the encoder; of each layer, the past's and the future's lie side by side."""

    directions = 2

    def __init__(self, card: Card, shape: Shape, over: OverFeatures | None = None) -> None:
        super().__init__()
        self.card, self.shape, self.over = card, shape, over
        self.encoder = None if over else Encoder(shape)
        self.past, self.future = aggregator(shape), aggregator(shape)
        self.channels, self.width = shape.convolutions[-1][0], shape.aggregator[-1][0]

    def frames(self, samples: int) -> int:
        return self.over.frames(samples) if self.over else self.shape.frames(samples)

    def framed(self, prepared: Tensor) -> Tensor:
        return framed(self.over or self.encoder, prepared)

    def context(self, frames: Sequence[Tensor]) -> list[Tensor]:
        return [self._aggregated(clip)[-1] for clip in frames]

    def forward(self, wavs: list[Tensor], attention: bool) -> Hidden:
        fronts = [self.framed(self.prepared(wav.to(self.device))) for wav in wavs]
        clips = [[front, *self._aggregated(front)] for front in fronts]
        lengths = torch.tensor([len(front) for front in fronts], device=self.device)
        return Hidden([padded(state) for state in zip(*clips, strict=True)], lengths)

    def tapped(self, wavs: list[Tensor], names: Sequence[str]) -> dict[str, list[Tensor]]:
        return {name: [tapped(self.encoder, None, wav.to(self.device), name) for wav in wavs] for name in names}

    def _aggregated(self, frames: Tensor) -> list[Tensor]:
        past, future = aggregated(self.past, frames), aggregated(self.future, frames.flip(0))
        return [torch.cat([before, after.flip(0)], dim=1) for before, after in zip(past, future, strict=True)]
