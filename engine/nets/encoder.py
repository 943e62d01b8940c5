"""What a pretext trains: a network that turns waveforms into the states of its layers."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from engine import upstream
from engine.errors import Refused
from engine.nets.transformer import Transformer
from engine.upstream import Hidden


class Encoder(nn.Module, ABC):
    """An upstream without its card. The numbers beside it are what a card tells."""

    hop: int  # samples
    shortest: int  # samples
    dims: tuple[int, ...]  # of each state
    attention: bool = False

    @abstractmethod
    def frames(self, samples: int) -> int:
        """Exact number of frames of a clip."""

    @abstractmethod
    def forward(self, wavs: list[Tensor], attention: bool = False) -> Hidden:
        """All states of a list of unpadded waveforms."""


class SpectralEncoder(Encoder):
    """A Transformer on spectral features; `reduce` frames are stacked into one."""

    attention = True
    longest = 3000  # frames that are attended to at once; longer clips are cut into equal parts, as in S3PRL's Mockingjay

    def __init__(
        self, features: str, *, reduce: int, width: int, blocks: int, heads: int, inner: int, dropout: float
    ) -> None:
        super().__init__()
        card = upstream.find(features)
        # In a tuple: its weights, if it has any, are its own and not part of this network's.
        self._front = (card.open(card).eval(),)
        self.reduce = reduce
        self.hop = card.hop * reduce
        self.shortest = card.shortest + (reduce - 1) * card.hop
        self.inputs = card.dims[-1] * reduce
        self.dims = (width,) * (blocks + 1)
        self.transformer = Transformer(self.inputs, width=width, blocks=blocks, heads=heads, inner=inner, dropout=dropout)

    def frames(self, samples: int) -> int:
        return self._front[0].frames(samples) // self.reduce

    def features(self, wavs: list[Tensor]) -> list[Tensor]:
        """What the Transformer takes: (frames, inputs) of each clip."""
        front = self._front[0].to(wavs[0].device)
        hidden = front.encode(wavs)
        return [self._stack(hidden.clip(index)[-1]) for index in range(len(wavs))]

    def forward(self, wavs: list[Tensor], attention: bool = False) -> Hidden:
        features = self.features(wavs)
        lengths = torch.tensor([len(clip) for clip in features])
        if int(lengths.max()) <= self.longest:
            padded = pad_sequence(features, batch_first=True)
            states, maps = self.transformer(padded, lengths, attention)
            return Hidden(states, lengths, maps)
        if attention:
            seconds = self.longest * self.hop / upstream.SAMPLE_RATE
            raise Refused(f"Attention maps are given for clips of up to {seconds:.0f} seconds; this one is longer.")
        clips = [self._in_parts(clip) for clip in features]
        layers = [pad_sequence([clip[layer] for clip in clips], batch_first=True) for layer in range(len(self.dims))]
        return Hidden(layers, lengths)

    def _stack(self, x: Tensor) -> Tensor:
        frames = len(x) // self.reduce
        return x[: frames * self.reduce].reshape(frames, -1)

    def _in_parts(self, clip: Tensor) -> list[Tensor]:
        count = -(-len(clip) // self.longest)
        parts = [self.transformer(part[None], torch.tensor([len(part)]))[0] for part in clip.tensor_split(count)]
        return [torch.cat([part[layer][0] for part in parts]) for layer in range(len(self.dims))]
