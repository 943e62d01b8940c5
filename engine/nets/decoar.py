"""DeCoAR and DeCoAR 2.0: mel energies into two stacks of LSTMs, or into wav2vec 2.0's Transformer.

Both hear Kaldi's 80 log mel energies under a Hamming window, normalised over the clip.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from engine.nets.clips import together
from engine.nets.front import Front
from engine.nets.spectra import Framing, Kaldi, normalise
from engine.nets.wav2vec2 import Shape, Wav2Vec2
from engine.upstream import Card, Hidden, Upstream

MELS = 80
FRAMING = Framing(shape="hamming")
SKIP = 2  # DeCoAR 2.0 takes every second frame


class Decoar(Upstream):
    """The LSTMs (Ling et al. 2020, arXiv:1912.01679), one stack forwards and one backwards.

    State 0 is the projected spectrum, state i what layer i of both stacks gives, side by side.
    """

    def __init__(self, card: Card, width: int, layers: int) -> None:
        super().__init__()
        self.card = card
        self.mel = Kaldi(MELS, framing=FRAMING)
        self.projection = nn.Linear(MELS, width)
        self.forwards = nn.ModuleList(nn.LSTM(width, width, batch_first=True) for _ in range(layers))
        self.backwards = nn.ModuleList(nn.LSTM(width, width, batch_first=True) for _ in range(layers))

    def frames(self, samples: int) -> int:
        return FRAMING.frames(samples)

    def forward(self, wavs: list[Tensor], attention: bool) -> Hidden:
        # In bfloat16 the errors of a recurrent net add up over the clip.
        with torch.autocast(self.device.type, enabled=False):
            return together([self._states(wav.to(self.device)) for wav in wavs])

    def spectrum(self, wav: Tensor) -> Tensor:
        """What the projection is given: (samples,) -> (frames, mels)."""
        return normalise(cast(Tensor, self.mel(wav)))

    def sides(self, spectra: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """The last layer of both stacks for each clip, (frames, width) each: what was before a frame, what comes after."""
        lengths = [len(spectrum) for spectrum in spectra]
        with torch.autocast(self.device.type, enabled=False):
            clips = list(torch.split(self.projection(torch.cat(spectra)), lengths))
            # What stands behind the end of a clip comes after all its frames, on either side.
            ahead, back = pad_sequence(clips, batch_first=True), pad_sequence([x.flip(0) for x in clips], batch_first=True)
            for forwards, backwards in zip(self.forwards, self.backwards, strict=True):
                ahead, back = forwards(ahead)[0], backwards(back)[0]
        return [(ahead[i, :length], back[i, :length].flip(0)) for i, length in enumerate(lengths)]

    def _states(self, wav: Tensor) -> list[Tensor]:
        x = self.projection(self.spectrum(wav))[None]
        states = [x[0]]
        ahead, back = x, x.flip(1)
        for forwards, backwards in zip(self.forwards, self.backwards, strict=True):
            ahead, back = forwards(ahead)[0], backwards(back)[0]
            states.append(torch.cat([ahead, back.flip(1)], dim=2)[0])
        return states


class Decoar2(Wav2Vec2):
    """The Transformer (Ling and Liu 2020, arXiv:2012.06659). Its quantizer served training only."""

    def __init__(self, card: Card, shape: Shape) -> None:
        super().__init__(card, shape)
        self.front = MelFront(shape)


class MelFront(Front):
    """Takes the place of convolutions: every second frame of the normalised spectrum."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        del self[:]
        self.mel = Kaldi(MELS, framing=FRAMING)

    def forward(self, wav: Tensor, depth: int | None = None) -> Tensor:
        """(samples,) -> (frames, mels)."""
        return normalise(cast(Tensor, self.mel(wav)))[::SKIP]


def decoar2_shape(dim: int, layers: int, inner: int, kernel: int, *, heads: int = 12, groups: int = 16) -> Shape:
    """Of a DeCoAR 2.0. In the arithmetic of frames its spectrum is one convolution over a window, two hops apart."""
    return Shape(
        dim=dim,
        layers=layers,
        heads=heads,
        inner=inner,
        convolutions=((MELS, FRAMING.window, SKIP * FRAMING.hop),),
        projection_norm=False,
        position_kernel=kernel,
        position_groups=groups,
    )
