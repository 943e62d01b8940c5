"""Hand-made features as one-layer upstreams: the baselines that every learned layer is measured against.

`fbank`, `mfcc` and `spectrogram` follow Kaldi as `torchaudio.compliance.kaldi` does (25 ms windows every 10 ms, Povey
window, pre-emphasis 0.97, no dither, edges snipped); `mel` follows the centred short-time Fourier transform with an HTK
mel scale. Deltas, mean and variance normalisation per clip are those of the SUPERB baselines. The frames of all clips of
a batch are worked on as one list, so that no clip sees padding.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from engine.upstream import Card, Family, Hidden, Upstream

WINDOW = 400  # 25 ms at 16 kHz
HOP = 160  # 10 ms
FFT = 512
BLOCK = 8192  # frames worked on at a time: bounds the memory that a long clip needs
EPSILON = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Recipe:
    """What turns windows of sound into one feature vector each."""

    mels: int = 0
    cepstra: int = 0
    deltas: int = 0
    centred: bool = False  # windows around multiples of the hop, ends mirrored; else windows that lie wholly inside

    @property
    def dim(self) -> int:
        return (self.cepstra or self.mels or FFT // 2 + 1) * (1 + self.deltas)


RECIPES = {
    "fbank": Recipe(mels=80, deltas=2),
    "mfcc": Recipe(mels=23, cepstra=13, deltas=2),
    "spectrogram": Recipe(),
    "mel": Recipe(mels=80, centred=True),
}


class Spectral(Upstream):
    """One recipe. It has no weights; its state 0 is the normalised feature."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card
        self.recipe = RECIPES[card.name]
        hann = torch.hann_window(WINDOW, periodic=self.recipe.centred)
        self.register_buffer("window", hann if self.recipe.centred else hann.pow(0.85), persistent=False)
        self.register_buffer("mel", mel_filters(self.recipe) if self.recipe.mels else torch.empty(0), persistent=False)
        self.register_buffer(
            "cosines", cosine_transform(self.recipe) if self.recipe.cepstra else torch.empty(0), persistent=False
        )
        self.window: Tensor
        self.mel: Tensor
        self.cosines: Tensor

    def frames(self, samples: int) -> int:
        return 1 + samples // HOP if self.recipe.centred else 1 + (samples - WINDOW) // HOP

    def forward(self, wavs: list[Tensor], attention: bool) -> Hidden:
        with torch.autocast(self.device.type, enabled=False):  # logarithms of powers need every bit
            windows = [self._windows(wav.to(self.device, torch.float32)) for wav in wavs]
            lengths = [len(frames) for frames in windows]
            spectra = torch.cat([self._spectrum(block) for block in torch.split(torch.cat(windows), BLOCK)])
            clips = [normalise(self._with_deltas(clip)) for clip in torch.split(spectra, lengths)]
            padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
        return Hidden([padded], torch.tensor(lengths, device=self.device))

    def _windows(self, wav: Tensor) -> Tensor:
        if self.recipe.centred:
            half = WINDOW // 2
            wav = functional.pad(wav[None], (half, half), mode="reflect")[0]
        return wav.unfold(0, WINDOW, HOP)

    def _spectrum(self, frames: Tensor) -> Tensor:
        if self.recipe.centred:
            return (power(torch.fft.rfft(frames * self.window)) @ self.mel + 1e-10).log()
        frames = frames - frames.mean(dim=1, keepdim=True)
        energy = frames.square().sum(dim=1)
        frames = frames - 0.97 * torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
        spectrum = power(torch.fft.rfft(frames * self.window, n=FFT))
        if not self.recipe.mels:
            # Kaldi puts the energy of the frame, not below 1, where the constant component was.
            return torch.cat([energy.clamp(min=1.0)[:, None], spectrum[:, 1:].clamp(min=EPSILON)], dim=1).log()
        feature = (spectrum @ self.mel).clamp(min=EPSILON).log()
        return feature @ self.cosines if self.recipe.cepstra else feature

    def _with_deltas(self, feature: Tensor) -> Tensor:
        features = [feature]
        for _ in range(self.recipe.deltas):
            features.append(delta(features[-1]))
        return torch.cat(features, dim=1)


def power(spectrum: Tensor) -> Tensor:
    """Squared magnitude, with a gradient at zero too."""
    return spectrum.real.square() + spectrum.imag.square()


def delta(feature: Tensor) -> Tensor:
    """Slope over five frames, the ends repeated: sum of n * (x[t+n] - x[t-n]) over 2 * (1 + 4), n = 1, 2."""
    first, last = feature[:1], feature[-1:]
    padded = torch.cat([first, first, feature, last, last])
    count = len(feature)
    at = [padded[i : i + count] for i in range(5)]
    return (2 * (at[4] - at[0]) + (at[3] - at[1])) / 10


def normalise(feature: Tensor) -> Tensor:
    """Zero mean and unit (unbiased) deviation over the frames of one clip; a constant feature becomes zero."""
    # In double precision the mean of equal numbers is that number, so that silence gives zeros and not rounding noise.
    precise = feature.double()
    centred = precise - precise.mean(dim=0)
    variance = centred.square().sum(dim=0) / max(1, len(feature) - 1)
    moves = variance > 0
    deviation = torch.where(moves, variance, torch.ones_like(variance)).sqrt()
    return torch.where(moves, centred / (1e-10 + deviation), torch.zeros_like(centred)).float()


def mel_filters(recipe: Recipe) -> Tensor:
    """Triangles as (frequency bins, mels): Kaldi's from 20 Hz and straight in mel, HTK's from 0 Hz and straight in Hz."""
    if recipe.centred:
        bins = torch.linspace(0, 8000, WINDOW // 2 + 1, dtype=torch.float64)
        edges = 700 * (torch.linspace(0, _mel(8000.0), recipe.mels + 2, dtype=torch.float64) / 1127).expm1()
    else:
        bins = 1127 * torch.log1p(torch.linspace(0, 8000, FFT // 2 + 1, dtype=torch.float64) / 700)
        edges = torch.linspace(_mel(20.0), _mel(8000.0), recipe.mels + 2, dtype=torch.float64)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    at = bins[:, None]
    triangles = torch.minimum((at - low) / (middle - low), (high - at) / (high - middle)).clamp(min=0)
    if not recipe.centred:
        triangles[-1] = 0  # Kaldi leaves the Nyquist bin out
    return triangles.float()


def _mel(hertz: float) -> float:
    return 1127 * math.log1p(hertz / 700)


def cosine_transform(recipe: Recipe) -> Tensor:
    """Orthonormal DCT-II from log mels to cepstra, liftered with 22 as Kaldi does: (mels, cepstra)."""
    mels = torch.arange(recipe.mels, dtype=torch.float64)[:, None]
    cepstra = torch.arange(recipe.cepstra, dtype=torch.float64)
    basis = math.sqrt(2 / recipe.mels) * torch.cos(math.pi / recipe.mels * (mels + 0.5) * cepstra)
    basis[:, 0] = math.sqrt(1 / recipe.mels)
    return (basis * (1 + 11 * torch.sin(math.pi * cepstra / 22))).float()


ABOUT = {
    "fbank": "80 log mel energies as Kaldi computes them, with first and second deltas, normalised over the clip.",
    "mfcc": "13 Kaldi cepstra with first and second deltas, normalised over the clip.",
    "spectrogram": "257 log powers as Kaldi computes them, normalised over the clip.",
    "mel": "80 log mel energies of centred windows, normalised over the clip.",
}

FAMILY = Family(
    cards=[
        Card(
            name=name,
            family="spectral",
            layers=0,
            dims=(recipe.dim,),
            hop=HOP,
            shortest=WINDOW // 2 + 1 if recipe.centred else WINDOW,
            open=Spectral,
            revision="1",
            license="none needed",
            about=ABOUT[name],
        )
        for name, recipe in RECIPES.items()
    ]
)
