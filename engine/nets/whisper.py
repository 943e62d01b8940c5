"""Whisper's encoder (Radford et al. 2022, arXiv:2212.04356), which hears 30 seconds at once.

A clip is brought to the length of the window with silence, by itself, as its authors do; the frames given are those
whose middle lies in the sound, ceil(samples / hop) of them. A longer clip goes through in overlapping windows. State 0
goes into the first block, positions added; state i comes out of block i. The norm after the last block is in no state.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.errors import Refused
from engine.nets.describing import describing
from engine.nets.prenorm import Block
from engine.nets.spectra import Centred, Framing
from engine.nets.windows import windowed
from engine.upstream import SAMPLE_RATE, Card, Hidden, Upstream
from engine.weights import renamed

ABOUT = (
    "The frames of a clip also attend to the silence that fills the window; attention maps show how a frame divides its "
    "attention among the frames of the clip."
)


@dataclass(frozen=True)
class Shape:
    """What tells one Whisper from another."""

    dim: int
    layers: int
    heads: int
    inner: int
    mels: int
    frames: int  # of a full window
    activation: str
    fft: int
    step: int  # samples from one spectral frame to the next; the encoder takes two of them

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return 2 * self.step

    @property
    def window(self) -> int:
        """Samples that are heard at once."""
        return self.frames * self.hop

    @property
    def overlap(self) -> int:
        """Samples that two windows of a long clip share: a sixth of the window."""
        return self.frames // 12 * 2 * self.hop


def read_shape(config: Mapping[str, Any], preprocessor: Mapping[str, Any], where: str) -> Shape:
    """The architecture that a configuration describes; what it leaves out has the defaults of transformers."""
    with describing(where):
        shape = Shape(
            dim=int(config.get("d_model", 384)),
            layers=int(config.get("encoder_layers", 4)),
            heads=int(config.get("encoder_attention_heads", 6)),
            inner=int(config.get("encoder_ffn_dim", 1536)),
            mels=int(config.get("num_mel_bins", 80)),
            frames=int(config.get("max_source_positions", 1500)),
            activation=str(config.get("activation_function", "gelu")),
            fft=int(preprocessor.get("n_fft", 400)),
            step=int(preprocessor.get("hop_length", 160)),
        )
        rate = int(preprocessor.get("sampling_rate", SAMPLE_RATE))
        said = (int(preprocessor.get("feature_size", shape.mels)), int(preprocessor.get("chunk_length", 30)) * rate)
    if rate != SAMPLE_RATE:
        raise Refused(f"'{where}' was trained at {rate} Hz; only a Whisper for {SAMPLE_RATE} Hz can be used.")
    if preprocessor and said != (shape.mels, shape.window):
        raise Refused(
            f"The preprocessor of '{where}' makes {said[0]} mel bands of {said[1]} samples, "
            f"but its encoder takes {shape.mels} bands of {shape.window} samples."
        )
    return shape


def describe(config: Mapping[str, Any], preprocessor: Mapping[str, Any], where: str) -> Card:
    """What the configuration says of the encoder."""
    shape = read_shape(config, preprocessor, where)
    return Card(
        name="",
        family="",
        layers=shape.layers,
        dims=(shape.dim,) * (shape.layers + 1),
        hop=shape.hop,
        shortest=1,
        attention=True,
        window=shape.window / SAMPLE_RATE,
        about=ABOUT,
    )


def build(card: Card, config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> Upstream:
    """The encoder as it is before it has learnt anything."""
    return Whisper(card, read_shape(config, preprocessor, card.name))


NAMES = [
    (r"^(?:model\.)?encoder\.", ""),
    (r"^embed_positions\.weight$", "positions"),
    (r"^layers\.", "blocks."),
    (r"\.self_attn_layer_norm\.", ".attention_norm."),
    (r"\.self_attn\.q_proj\.", ".query."),
    (r"\.self_attn\.k_proj\.", ".key."),
    (r"\.self_attn\.v_proj\.", ".value."),
    (r"\.self_attn\.out_proj\.", ".out."),
    (r"\.final_layer_norm\.", ".feed_norm."),
    (r"\.fc1\.", ".up."),
    (r"\.fc2\.", ".down."),
]


def weights(held: Mapping[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Tensor], Sequence[str]]:
    """The weights of the encoder under our names; the decoder and the norm after the last block are left out."""
    parts = ("encoder.", "model.encoder.")
    given = {
        name: tensor for name, tensor in held.items() if name.startswith(parts) and ".encoder.layer_norm." not in f".{name}"
    }
    return renamed(given, NAMES), sorted(held.keys() - given.keys())


class Whisper(Upstream):
    """The encoder, window by window."""

    def __init__(self, card: Card, shape: Shape) -> None:
        super().__init__()
        self.card = card
        self.shape = shape
        with torch.device("cpu"):  # the network may lie on the meta device; what is computed from nothing does not
            framing = Framing(window=shape.fft, hop=shape.step, fft=shape.fft, shape="periodic hann", centred=True)
            self.mel = Centred(shape.mels, framing=framing, high=8000.0, scale="slaney", area=True)
        self.conv1 = nn.Conv1d(shape.mels, shape.dim, 3, padding=1)
        self.conv2 = nn.Conv1d(shape.dim, shape.dim, 3, stride=2, padding=1)
        self.positions = nn.Parameter(_sinusoids(shape.frames, shape.dim))
        self.blocks = nn.ModuleList(
            Block(shape.dim, shape.heads, shape.inner, shape.activation, 1e-5, key_bias=False) for _ in range(shape.layers)
        )

    def frames(self, samples: int) -> int:
        return -(-samples // self.shape.hop)

    def forward(self, wavs: list[Tensor], attention: bool) -> Hidden:
        sizes = self.shape.window, self.shape.overlap, self.shape.hop
        wavs = [wav.to(self.device, torch.float32) for wav in wavs]
        return windowed(self.card, wavs, *sizes, self._window, attention)

    def log_mel(self, wav: Tensor) -> Tensor:
        """(samples,) of at most one window -> (2 * frames of the window, mels), no more than 80 dB below the loudest."""
        with torch.autocast(wav.device.type, enabled=False):
            full = functional.pad(wav, (0, self.shape.window - wav.numel()))
            feature = self.mel(full)[:-1].clamp(min=1e-10).log10()
            return (torch.maximum(feature, feature.max() - 8.0) + 4.0) / 4.0

    def _window(self, wav: Tensor, attention: bool) -> tuple[list[Tensor], list[Tensor]]:
        frames = self.frames(wav.numel())
        x = functional.gelu(self.conv1(self.log_mel(wav).T[None]))
        x = functional.gelu(self.conv2(x))[0].T.float() + self.positions
        states, maps = [x[:frames]], []
        for block in self.blocks:
            x, scores = block(x, attention)
            states.append(x[:frames])
            if scores is not None:
                maps.append(scores[:, :frames, :frames].softmax(dim=-1))
        return states, maps


def _sinusoids(frames: int, dim: int) -> Tensor:
    """Whisper's positions, which it does not learn: sines, then cosines, wave lengths from 2 pi to 10,000 * 2 pi."""
    rates = torch.exp(-math.log(10_000) / max(1, dim // 2 - 1) * torch.arange(dim // 2))
    angles = torch.arange(frames)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
