"""Networks whose contexts know nothing of what is to come, and what guesses it from them."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from engine import upstream
from engine.upstream import Upstream

Predictor = Literal["linear", "LSTM", "transformer"]

HEADS, INNER, DROPOUT = 8, 2048, 0.1  # of the Transformer of Riviere et al. 2020


class OverFeatures(nn.Module):
    """One layer over each frame of the features of another upstream: far quicker than convolutions over a waveform."""

    def __init__(self, features: str, reduce: int, channels: int) -> None:
        super().__init__()
        found = upstream.find(features)
        # In a tuple: its weights, if it has any, are its own and not part of this network's.
        self._features = (found.open(found).eval(),)
        self.reduce, self.hop = reduce, found.hop * reduce
        self.shortest = found.shortest + (reduce - 1) * found.hop
        self.project = nn.Sequential(nn.Linear(found.dims[-1] * reduce, channels), nn.LayerNorm(channels), nn.ReLU())

    def frames(self, samples: int) -> int:
        """Frames of so many samples."""
        return self._features[0].frames(samples) // self.reduce

    def prepared(self, wave: Tensor) -> Tensor:
        """The features, so many frames of them in one row: (frames, dim)."""
        rows = self._features[0].to(wave.device).encode([wave]).clip(0)[-1]
        frames = len(rows) // self.reduce
        return rows[: frames * self.reduce].reshape(frames, -1)

    def forward(self, prepared: Tensor) -> Tensor:
        frames: Tensor = self.project(prepared)
        return frames


class Foreseer(Upstream):
    """Frames that each know only their own stretch of sound, and for each frame a context of what came before it.

    A network may have contexts in two directions; they lie side by side, and the second knows only what comes after.
    """

    channels: int  # of a frame
    width: int  # of a context in one direction
    directions: int = 1
    over: OverFeatures | None  # in place of convolutions

    @property
    def stride(self) -> int:
        """Samples of sound in one row of what is prepared."""
        return 1 if self.over is None else self.over.hop

    def prepared(self, wave: Tensor) -> Tensor:
        """What is computed once and kept: the waveform itself, or the features of it that are not trained."""
        return wave if self.over is None else self.over.prepared(wave)

    @abstractmethod
    def framed(self, prepared: Tensor) -> Tensor:
        """The frames of a clip: (frames, channels)."""

    @abstractmethod
    def context(self, frames: Sequence[Tensor]) -> list[Tensor]:
        """Of each clip, the context of each frame: (frames, directions * width)."""


class Guesses(nn.Module):
    """A guess of each of the next frames from each context: (clips, frames, width) -> (clips, frames, ahead, channels).

    Each distance has a network of its own. Those that have a memory hear all contexts up to the one they guess from.
    """

    def __init__(self, kind: Predictor, width: int, channels: int, ahead: int, *, bias: bool = False) -> None:
        super().__init__()
        self.ahead = ahead
        make = {"linear": _Linear, "LSTM": _Recurrent, "transformer": _Attending}[kind]
        self.steps = nn.ModuleList(make(width, channels, bias) for _ in range(ahead))

    def forward(self, contexts: Tensor) -> Tensor:
        return torch.stack([step(contexts) for step in self.steps], dim=2)


class _Linear(nn.Linear):
    def __init__(self, width: int, channels: int, bias: bool) -> None:
        super().__init__(width, channels, bias=bias)


class _Recurrent(nn.LSTM):
    def __init__(self, width: int, channels: int, bias: bool) -> None:
        super().__init__(width, channels, batch_first=True)

    def forward(self, contexts: Tensor) -> Tensor:  # type: ignore[override]
        guessed: Tensor = super().forward(contexts)[0]
        return guessed


class _Attending(nn.Module):
    """One block of a Transformer that looks back, without positions: the contexts know the order."""

    def __init__(self, width: int, channels: int, bias: bool) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(width, HEADS, INNER, DROPOUT, batch_first=True)
        self.out = nn.Identity() if width == channels else nn.Linear(width, channels, bias=bias)

    def forward(self, contexts: Tensor) -> Tensor:
        later = nn.Transformer.generate_square_subsequent_mask(contexts.shape[1], device=contexts.device)
        guessed: Tensor = self.out(self.block(contexts, src_mask=later, is_causal=True))
        return guessed


def ahead_of(frames: int, ahead: int) -> tuple[Tensor, Tensor, Tensor]:
    """Every guess that can be made within so many frames: from which frame, how far ahead (0 is the next), of which."""
    place = torch.arange(frames)[:, None] + torch.arange(1, ahead + 1)
    begin, distance = (place < frames).nonzero(as_tuple=True)
    return begin, distance, begin + distance + 1


def padded(clips: Sequence[Tensor]) -> Tensor:
    """(clips, frames, channels), zeros after the end of each."""
    return pad_sequence(list(clips), batch_first=True)
