"""Contrastive predictive coding over the features of another upstream: much quicker on a processor than convolutions."""

from torch import Tensor, nn

from engine import upstream
from engine.nets.cpc import CPC, Shape, levels
from engine.nets.foresight import Foreseer
from engine.upstream import Card


class SpectralCPC(CPC):
    """The network. State 0 comes out of one layer over each frame's features, state i out of recurrent layer i."""

    def __init__(self, card: Card, shape: Shape, features: str, reduce: int) -> None:
        Foreseer.__init__(self)
        self.card, self.shape = card, shape
        self.channels, self.width = shape.channels, shape.width
        found = upstream.find(features)
        # In a tuple: its weights, if it has any, are its own and not part of this network's.
        self._features = (found.open(found).eval(),)
        self.reduce, self.stride = reduce, found.hop * reduce
        self.project = nn.Sequential(
            nn.Linear(found.dims[-1] * reduce, shape.channels), nn.LayerNorm(shape.channels), nn.ReLU()
        )
        self.levels = levels(shape)

    def frames(self, samples: int) -> int:
        return self._features[0].frames(samples) // self.reduce

    def prepared(self, wave: Tensor) -> Tensor:
        rows = self._features[0].to(wave.device).encode([wave]).clip(0)[-1]
        frames = len(rows) // self.reduce
        return rows[: frames * self.reduce].reshape(frames, -1)

    def framed(self, prepared: Tensor) -> Tensor:
        frames: Tensor = self.project(prepared)
        return frames
