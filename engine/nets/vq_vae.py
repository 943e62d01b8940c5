"""VQ-VAE: convolutions bring features to the words of a codebook (van den Oord et al. 2017; Chorowski et al. 2019)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine import upstream
from engine.nets.clips import convolved, together
from engine.nets.learnt_codes import EmaCodes
from engine.upstream import Card, Hidden, Tap, Upstream

LEAST = 0.03  # an entry that is used less than this share of the average is idle


@dataclass(frozen=True)
class Shape:
    """Everything that tells one network of this kind from another."""

    features: str  # the last layer of this upstream is what the convolutions are given
    reduce: int  # frames that are stacked into one
    width: int
    convolutions: int  # over three frames
    linears: int  # over one frame
    word: int  # size of an entry
    entries: int

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return upstream.find(self.features).hop * self.reduce

    @property
    def shortest(self) -> int:
        """Samples that give one frame."""
        card = upstream.find(self.features)
        return card.shortest + (self.reduce - 1) * card.hop

    @property
    def dims(self) -> tuple[int, ...]:
        """Of each state."""
        return (*(self.width,) * (self.convolutions + self.linears), self.word)

    @property
    def taps(self) -> tuple[Tap, ...]:
        return (Tap("codes", 1, self.hop, codes=True, entries=self.entries),)


class VqVae(Upstream):
    """The encoder. State 0 comes out of the first convolution; the last one is what the codebook is given."""

    def __init__(self, card: Card, shape: Shape) -> None:
        super().__init__()
        self.card = card
        self.shape = shape
        front = upstream.find(shape.features)
        # In a tuple: its weights, if it has any, are its own and not part of this network's.
        self._front = (front.open(front).eval(),)
        channels = front.dims[-1] * shape.reduce
        kernels = [3] * shape.convolutions + [1] * shape.linears
        self.layers = nn.ModuleList(
            nn.Conv1d(shape.width if number else channels, shape.width, kernel, padding=kernel // 2)
            for number, kernel in enumerate(kernels)
        )
        self.bottleneck = nn.Linear(shape.width, shape.word)
        self.codebook = EmaCodes(1, shape.entries, shape.word, least=LEAST)

    def frames(self, samples: int) -> int:
        return self._front[0].frames(samples) // self.shape.reduce

    def local(self, wavs: list[Tensor]) -> list[Tensor]:
        """The stacked features of each clip: (frames, channels)."""
        hidden = self._front[0].to(wavs[0].device).encode(wavs)
        return [stacked(hidden.clip(index)[-1], self.shape.reduce) for index in range(len(wavs))]

    def states(self, clips: list[Tensor]) -> list[Tensor]:
        """Every state of clips of stacked features, whose frames stand one after another: (sum of frames, dim)."""
        lengths = [len(clip) for clip in clips]
        x, states = torch.cat(clips), []
        for number, layer in enumerate(self.layers):
            y = functional.relu(convolved(layer, x, lengths))
            x = x + y if number else y
            states.append(x)
        return [*states, self.bottleneck(x)]

    def forward(self, wavs: list[Tensor], attention: bool) -> Hidden:
        return together([self.states([clip]) for clip in self.local([wav.to(self.device) for wav in wavs])])

    def tapped(self, wavs: list[Tensor], names: Sequence[str]) -> dict[str, list[Tensor]]:
        clips = self.local([wav.to(self.device) for wav in wavs])
        return {"codes": [self.codebook.codes(self.states([clip])[-1]) for clip in clips]}


def stacked(x: Tensor, reduce: int) -> Tensor:
    """So many frames side by side as one; what is left over at the end is dropped."""
    frames = len(x) // reduce
    return x[: frames * reduce].reshape(frames, -1)
