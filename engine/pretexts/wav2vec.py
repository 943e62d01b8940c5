"""wav2vec: the next frames are told from false ones, each judged by itself (Schneider et al., Interspeech 2019)."""

from typing import ClassVar, Literal

from pydantic import Field

from engine.nets.foresight import Guesses
from engine.nets.wav2vec import Shape, Wav2Vec
from engine.objectives.foreseeing import Convolutional, Foresight
from engine.pretext import Before, Objective
from engine.upstream import Upstream


class Wav2vec(Convolutional):
    """Convolutions turn the sound into frames, more of them sum up what was heard, and the next twelve frames are guessed.

    Of the true frame and of ten false ones from the same clip it is asked each time whether it is the true one. There is no
    recurrent net, so a GPU learns from all frames at once. Sizes and rates are the paper's.
    """

    paper: ClassVar[str] = "Schneider et al. 2019, arXiv:1904.05862"

    size: Literal["base", "large"] = Field(
        "base",
        description="Base hears 0.2 s in nine layers; large 0.8 s in twelve, each added to its input, after seven "
        "convolutions and a logarithm.",
    )
    balanced: bool = Field(
        False, description="All false frames together count as much as the true one; else each of them does, as published."
    )

    def shape(self) -> Shape:
        large = self.size == "large"
        return Shape(
            convolutions=self.encoder(2 if large else 0),
            aggregator=self.growing(2, 13) if large else ((self.channels, 3),) * 9,
            logarithm=large,
            aggregator_skips=large,
        )

    def network(self) -> Wav2Vec:
        shape, over = self.shape(), self.over(self.channels)
        return Wav2Vec(self.described(shape, shape.dims, over), shape, over)

    def objective(self, network: Upstream, before: Before) -> Objective:
        assert isinstance(network, Wav2Vec)
        guesses = Guesses("linear", network.width, network.channels, self.ahead, bias=True)
        return Foresight(network, [guesses], self, balance=1.0 if self.balanced else float(self.others))

    @classmethod
    def title(cls) -> str:
        return "wav2vec"
