"""A Transformer over the features of another upstream, which is not trained along: the network of many pretexts."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from engine import upstream
from engine.errors import Refused
from engine.nets.contextual import Contextual
from engine.nets.transformer import Transformer
from engine.upstream import Card, Hidden


@dataclass(frozen=True)
class Shape:
    """Everything that tells one network of this kind from another."""

    features: str  # the last layer of this upstream is what the blocks are given
    reduce: int  # frames that are stacked into one
    width: int
    blocks: int
    heads: int
    inner: int
    dropout: float = 0.0
    shared: bool = False  # one block is run again and again
    norm_first: bool = False
    sinusoids: bool = True  # are added to frames to tell their places
    nearby: int = 0  # frames around each that a convolution adds to it before the first block, as wav2vec 2.0 does

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
        return (self.width,) * (self.blocks + 1)


class SpectralEncoder(Contextual):
    """The network. State 0 goes into the first block, state i comes out of block i."""

    longest = 3000  # frames that are attended to at once; longer clips are cut into equal parts, as in S3PRL's Mockingjay

    def __init__(self, card: Card, shape: Shape) -> None:
        super().__init__()
        self.card = card
        self.shape = shape
        front = upstream.find(shape.features)
        # In a tuple: its weights, if it has any, are its own and not part of this network's.
        self._front = (front.open(front).eval(),)
        self.channels = front.dims[-1] * shape.reduce
        self.width = shape.width
        self.transformer = Transformer(
            self.channels,
            width=shape.width,
            blocks=shape.blocks,
            heads=shape.heads,
            inner=shape.inner,
            dropout=shape.dropout,
            shared=shape.shared,
            norm_first=shape.norm_first,
            sinusoids=shape.sinusoids,
        )

        self.nearby: nn.Conv1d | None = None
        if shape.nearby:
            kernel, width = shape.nearby, shape.width
            self.nearby = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=shape.heads)

    def frames(self, samples: int) -> int:
        return self._front[0].frames(samples) // self.shape.reduce

    def local(self, wavs: list[Tensor]) -> list[Tensor]:
        front = self._front[0].to(wavs[0].device)
        hidden = front.encode(wavs)
        return [self._stack(hidden.clip(index)[-1]) for index in range(len(wavs))]

    def projected(self, local: Tensor) -> Tensor:
        projected: Tensor = self.transformer.project(local)
        return projected

    def contextual(self, x: Tensor, lengths: list[int]) -> list[Tensor]:
        return self.transformer.encode_clips(self._placed(x, lengths), lengths)

    def last(self, x: Tensor, lengths: list[int], wanted: Tensor) -> Tensor:
        """The last state of the wanted frames (frames,) alone, which is quicker where they are few."""
        return self.transformer.encode_clips(self._placed(x, lengths), lengths, wanted)[-1]

    @property
    def feeds(self) -> Sequence[nn.Module]:
        return self.transformer.feeds

    def without_front(self) -> Self:
        return deepcopy(self, {id(self._front): ()})

    def forward(self, wavs: list[Tensor], attention: bool = False) -> Hidden:
        features = self.local([wav.to(self.device) for wav in wavs])
        lengths = torch.tensor([len(clip) for clip in features])
        projected = [self.projected(clip) for clip in features]
        if int(lengths.max()) <= self.longest:
            placed = [self._placed(clip, [len(clip)]) for clip in projected]
            states, maps = self.transformer.encode(pad_sequence(placed, batch_first=True), lengths, attention)
            return Hidden(states, lengths, maps)
        if attention:
            seconds = self.longest * self.shape.hop / upstream.SAMPLE_RATE
            raise Refused(f"Attention maps are given for clips of up to {seconds:.0f} seconds; this one is longer.")
        clips = [self._in_parts(clip) for clip in projected]
        layers = [pad_sequence([clip[layer] for clip in clips], batch_first=True) for layer in range(len(self.card.dims))]
        return Hidden(layers, lengths)

    def _stack(self, x: Tensor) -> Tensor:
        frames = len(x) // self.shape.reduce
        return x[: frames * self.shape.reduce].reshape(frames, -1)

    def _placed(self, x: Tensor, lengths: list[int]) -> Tensor:
        """Frames with what is near them, which tells where they are; each clip by itself."""
        if self.nearby is None:
            return x
        clips = torch.split(x, lengths)
        return torch.cat([clip + functional.gelu(self.nearby(clip.T[None])[0].T[: len(clip)]) for clip in clips])

    def _in_parts(self, clip: Tensor) -> list[Tensor]:
        parts = [self._placed(part, [len(part)])[None] for part in clip.tensor_split(-(-len(clip) // self.longest))]
        encoded = [self.transformer.encode(part, torch.tensor([part.shape[1]]))[0] for part in parts]
        return [torch.cat([part[layer][0] for part in encoded]) for layer in range(len(self.card.dims))]
