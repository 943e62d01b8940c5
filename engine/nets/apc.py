"""APC and VQ-APC: recurrent layers over log mel energies that hear only the past (Chung et al. 2019, 2020).

Padding follows the frames of a clip, and no layer hears what follows: so no frame hears padding. (Packed sequences would do
as well, but their gradient takes several times as long.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from engine.errors import Refused
from engine.nets.quantizer import LinearQuantizer
from engine.nets.spectra import Framing, Kaldi, normalise
from engine.upstream import Card, Hidden, Upstream


@dataclass(frozen=True)
class Shape:
    """Everything that tells one network of this kind from another."""

    mels: int
    dim: int
    layers: int
    framing: Framing
    residual: bool = True  # each layer but the first is added to its input
    normalised: bool = True  # features, over the clip
    widths: tuple[int, ...] = ()  # of the groups that are quantized after the last layer
    entries: tuple[int, ...] = ()  # of their codebooks
    dropout: float = 0.0  # of what each layer says, while learning

    def __post_init__(self) -> None:
        if min(self.mels, self.dim, self.layers, *self.widths, *self.entries) < 1:
            raise Refused("Every size of a network is at least 1.")
        if self.widths and sum(self.widths) != self.dim or len(self.widths) != len(self.entries):
            raise Refused(f"Groups of {self.widths} with {self.entries} entries cannot quantize a layer of {self.dim}.")

    @property
    def dims(self) -> tuple[int, ...]:
        """Of each state."""
        return (self.mels, *(self.dim,) * self.layers)


class APC(Upstream):
    """The network. State 0 is the feature, state i the output of layer i, before any quantizer."""

    def __init__(self, card: Card, shape: Shape) -> None:
        super().__init__()
        self.card = card
        self.shape = shape
        self.features = Kaldi(shape.mels, framing=shape.framing)
        self.quantizer = LinearQuantizer(shape.widths, shape.entries) if shape.widths else None
        self.layers = nn.ModuleList(
            nn.GRU(shape.dim if number else shape.mels, shape.dim, batch_first=True) for number in range(shape.layers)
        )

    def frames(self, samples: int) -> int:
        return self.shape.framing.frames(samples)

    def forward(self, wavs: list[Tensor], attention: bool) -> Hidden:
        clips = self.local(wavs)
        lengths = [len(clip) for clip in clips]
        padded = [pad_sequence(list(torch.split(state, lengths)), batch_first=True).float() for state in self.states(clips)]
        return Hidden(padded, torch.tensor(lengths, device=self.device))

    def tapped(self, wavs: list[Tensor], names: Sequence[str]) -> dict[str, list[Tensor]]:
        assert self.quantizer is not None
        with torch.autocast(self.device.type, enabled=False):
            return {"codes": [self.quantizer(self.states([clip])[-1]) for clip in self.local(wavs)]}

    def local(self, wavs: list[Tensor]) -> list[Tensor]:
        """The features of each clip: (frames, mels)."""
        clips = []
        for wav in wavs:
            feature = self.features(wav.to(self.device))
            clips.append(normalise(feature) if self.shape.normalised else feature)
        return clips

    def states(self, clips: list[Tensor]) -> list[Tensor]:
        """Every state of clips of features, whose frames stand one after another: (sum of frames, dim)."""
        heard = pad_sequence(clips, batch_first=True)
        lengths = torch.tensor([len(clip) for clip in clips], device=heard.device)
        valid = torch.arange(heard.shape[1], device=heard.device) < lengths[:, None]
        states = [heard[valid]]
        for number, layer in enumerate(self.layers):
            said = functional.dropout(layer(heard)[0], self.shape.dropout, self.training)
            heard = said.float() + heard if self.shape.residual and number else said
            states.append(heard[valid])
        return states
