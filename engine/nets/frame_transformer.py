"""Transformers over spectral features of the waveform: Mockingjay, TERA, AudioALBERT and their kin.

Every clip goes through alone. One that is longer than the network hears at once is cut into equal parts, each with
positions of its own, as S3PRL does it.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from engine.errors import Refused
from engine.nets.front import ACTIVATIONS
from engine.nets.spectra import Centred, Framing, Kaldi, delta, normalise
from engine.nets.transformer import Transformer
from engine.upstream import SAMPLE_RATE, Card, Hidden, Upstream

LOG_FLOOR = 1e-10


@dataclass(frozen=True)
class Feature:
    """What the network is given for each frame."""

    front: Literal["kaldi", "centred"]
    framing: Framing
    mels: int  # 0 = the powers themselves
    cepstra: int = 0
    logarithm: bool = True  # of the centred ones; Kaldi's always are
    deltas: int = 0
    normalised: bool = True  # over the clip
    level: float | None = None  # decibels that every clip is brought to first

    @property
    def dim(self) -> int:
        """Size of one frame."""
        return (self.cepstra or self.mels or self.framing.fft // 2 + 1) * (1 + self.deltas)


@dataclass(frozen=True)
class Shape:
    """Everything that tells one network of this kind from another."""

    feature: Feature
    dim: int
    layers: int
    heads: int
    inner: int
    longest: int = 0  # frames heard at once; 0 = any number
    shared: bool = False  # all blocks are one and the same
    norm_first: bool = False
    activation: str = "gelu"
    epsilon: float = 1e-12

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise Refused(f"The activation '{self.activation}' is not known. There is: {', '.join(ACTIVATIONS)}.")
        if min(self.dim, self.layers, self.heads, self.inner) < 1:
            raise Refused("Every size of a network is at least 1.")
        if self.dim % self.heads:
            raise Refused(f"A width of {self.dim} cannot be divided among {self.heads} attention heads.")


class Features(nn.Module):
    """(samples,) of one clip -> (frames, dim)."""

    def __init__(self, feature: Feature) -> None:
        super().__init__()
        self.feature = feature
        self.front: Kaldi | Centred
        if feature.front == "kaldi":
            self.front = Kaldi(feature.mels, cepstra=feature.cepstra, framing=feature.framing)
        else:
            self.front = Centred(feature.mels, framing=feature.framing)

    def forward(self, wav: Tensor) -> Tensor:
        with torch.autocast(wav.device.type, enabled=False):
            wav = wav.float()
            if self.feature.level is not None:
                # The smallest number keeps a gradient where there is silence, and changes nothing elsewhere.
                loudness = wav.square().mean().clamp(min=1e-30).sqrt()
                wav = wav * (10 ** (self.feature.level / 20) / (loudness + LOG_FLOOR))
            x: Tensor = self.front(wav)
            if self.feature.front == "centred" and self.feature.logarithm:
                x = (x + LOG_FLOOR).log()
            slopes = [x]
            for _ in range(self.feature.deltas):
                slopes.append(delta(slopes[-1]))
            x = torch.cat(slopes, dim=1)
            return normalise(x) if self.feature.normalised else x


class FrameTransformer(Upstream):
    """The network. State 0 is the projected feature with its position, normalised; state i comes out of block i."""

    def __init__(self, card: Card, shape: Shape) -> None:
        super().__init__()
        self.card = card
        self.shape = shape
        self.features = Features(shape.feature)
        self.transformer = Transformer(
            shape.feature.dim,
            width=shape.dim,
            blocks=shape.layers,
            heads=shape.heads,
            inner=shape.inner,
            dropout=0.0,
            shared=shape.shared,
            norm_first=shape.norm_first,
            activation=shape.activation,
            epsilon=shape.epsilon,
            angles=torch.float64,
        )

    def frames(self, samples: int) -> int:
        return self.shape.feature.framing.frames(samples)

    def forward(self, wavs: list[Tensor], attention: bool) -> Hidden:
        longest = self.shape.longest
        if attention and longest and max(self.frames(wav.numel()) for wav in wavs) > longest:
            seconds = longest * self.card.hop / SAMPLE_RATE
            raise Refused(f"Attention maps are given for clips of up to {seconds:g} seconds; this one is longer.")
        clips, maps = [], []
        for wav in wavs:
            states, weights = self._clip(self.features(wav.to(self.device)), attention)
            clips.append(states)
            maps.append(weights)
        lengths = torch.tensor([self.frames(wav.numel()) for wav in wavs], device=self.device)
        layers = []
        for _ in self.card.dims:  # what is put together is let go, so that a long clip is held once
            layers.append(pad_sequence([torch.cat(clip.pop(0)) for clip in clips], batch_first=True).float())
        return Hidden(layers, lengths, _padded(maps) if attention else None)

    def _clip(self, feature: Tensor, attention: bool) -> tuple[list[list[Tensor]], list[Tensor]]:
        """The states of one clip, each in its parts, and its attention maps."""
        count = math.ceil(len(feature) / self.shape.longest) if self.shape.longest else 1
        parts = []
        maps: list[Tensor] | None = None
        for part in torch.chunk(feature, count):
            states, maps = self.transformer(part[None], torch.tensor([len(part)]), attention)
            parts.append([state[0] for state in states])
        return [list(layer) for layer in zip(*parts, strict=True)], [weights[0] for weights in maps or []]


def _padded(maps: list[list[Tensor]]) -> list[Tensor]:
    """Maps of each clip, of each block -> (clips, heads, frames, frames) of each block, zero where there is no frame."""
    longest = max(clip[0].shape[1] for clip in maps)
    wide = [[functional.pad(each, (0, longest - each.shape[2]) * 2).float() for each in clip] for clip in maps]
    return [torch.stack(block) for block in zip(*wide, strict=True)]
