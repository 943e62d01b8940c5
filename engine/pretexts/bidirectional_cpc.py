"""Bidirectional contrastive predictive coding (Kawakami, Wang, Dyer, Blunsom, van den Oord 2020)."""

from typing import ClassVar

from engine.nets.both_ways import BothWays
from engine.nets.foresight import Guesses
from engine.nets.wav2vec import Shape
from engine.objectives.foreseeing import Convolutional, Foresight
from engine.pretext import Before, Objective
from engine.upstream import Upstream


class BidirectionalCpc(Convolutional):
    """Two networks over the same frames: one has heard the past and guesses what comes, the other guesses what was.

    Each is causal in its own direction, so neither has heard what it guesses; their outputs side by side know both sides of
    every frame. The loss is that of CPC, with false frames of the same clip. The aggregators are wav2vec's large one with a
    layer more, each layer added to its input.
    """

    paper: ClassVar[str] = "Kawakami et al. 2020, arXiv:2001.11128"

    def shape(self) -> Shape:
        return Shape(convolutions=self.encoder(2), aggregator=self.growing(1, 13), logarithm=False, aggregator_skips=True)

    def network(self) -> BothWays:
        shape, over = self.shape(), self.over(self.channels)
        dims = (shape.dims[0], *(2 * width for width in shape.dims[1:]))
        return BothWays(self.described(shape, dims, over), shape, over)

    def objective(self, network: Upstream, before: Before) -> Objective:
        assert isinstance(network, BothWays)
        guesses = [Guesses("linear", network.width, network.channels, self.ahead) for _ in range(network.directions)]
        return Foresight(network, guesses, self)

    @classmethod
    def title(cls) -> str:
        return "Bidirectional CPC"
