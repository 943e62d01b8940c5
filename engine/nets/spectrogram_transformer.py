"""The Audio Spectrogram Transformer (Gong et al. 2021, arXiv:2104.01778): patches of a spectrogram as a sentence.

A token is a patch of 16 x 16 in frequency and time, after two tokens that stand for the whole clip. A frame here is the
mean over the patches of one time step, the two special tokens left out; so are the time steps that begin behind the end
of the sound. State 0 goes into the first block, positions added; state i comes out of block i, before the norm at the end.

A clip is brought to the length of the window with zeros, by itself. A window is as long as its whole time steps (10.1
seconds, where the spectrogram has room for 10.24); a longer clip goes through in overlapping windows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.errors import Refused
from engine.nets.describing import describing
from engine.nets.prenorm import Block
from engine.nets.spectra import Framing, Kaldi
from engine.nets.windows import windowed
from engine.upstream import SAMPLE_RATE, Card, Hidden, Upstream
from engine.weights import renamed

FRAMING = Framing(shape="hann")  # 25 ms every 10 ms
ABOUT = "A frame is the mean over the frequency patches of one time step; attention maps are summed up in the same way."


@dataclass(frozen=True)
class Shape:
    """What tells one spectrogram Transformer from another."""

    dim: int
    layers: int
    heads: int
    inner: int
    mels: int
    length: int  # spectral frames of a full window
    patch: tuple[int, int]  # in frequency and time
    strides: tuple[int, int]  # from one patch to the next
    activation: str
    epsilon: float
    bias: bool  # of query, key and value
    mean: float
    deviation: float

    @property
    def grid(self) -> tuple[int, int]:
        """Patches in frequency, and time steps."""
        rows, steps = self.mels - self.patch[0], self.length - self.patch[1]
        return rows // self.strides[0] + 1, steps // self.strides[1] + 1

    @property
    def hop(self) -> int:
        """Samples from one time step to the next."""
        return self.strides[1] * FRAMING.hop

    @property
    def window(self) -> int:
        """Samples that are heard at once."""
        return self.grid[1] * self.hop

    @property
    def overlap(self) -> int:
        """Samples that two windows of a long clip share: about a sixth of the window."""
        return max(2, self.grid[1] // 12) * 2 * self.hop


def read_shape(config: Mapping[str, Any], preprocessor: Mapping[str, Any], where: str) -> Shape:
    """The architecture that a configuration describes; what it leaves out has the defaults of transformers."""
    with describing(where):
        shape = Shape(
            dim=int(config.get("hidden_size", 768)),
            layers=int(config.get("num_hidden_layers", 12)),
            heads=int(config.get("num_attention_heads", 12)),
            inner=int(config.get("intermediate_size", 3072)),
            mels=int(config.get("num_mel_bins", 128)),
            length=int(config.get("max_length", 1024)),
            patch=(int(config.get("patch_size", 16)),) * 2,
            strides=(int(config.get("frequency_stride", 10)), int(config.get("time_stride", 10))),
            activation=str(config.get("hidden_act", "gelu")),
            epsilon=float(config.get("layer_norm_eps", 1e-12)),
            bias=bool(config.get("qkv_bias", True)),
            mean=float(preprocessor.get("mean", -4.2677393)) if preprocessor.get("do_normalize", True) else 0.0,
            deviation=float(preprocessor.get("std", 4.5689974)) if preprocessor.get("do_normalize", True) else 0.5,
        )
        rate = int(preprocessor.get("sampling_rate", SAMPLE_RATE))
        said = int(preprocessor.get("num_mel_bins", shape.mels)), int(preprocessor.get("max_length", shape.length))
        if shape.hop < FRAMING.hop or shape.grid[0] < 1 or shape.grid[1] < 5:
            raise ValueError(f"a spectrogram of {shape.mels} x {shape.length} has no room for patches")
    if rate != SAMPLE_RATE:
        raise Refused(f"'{where}' was trained at {rate} Hz; only a spectrogram of {SAMPLE_RATE} Hz can be made.")
    if said != (shape.mels, shape.length):
        raise Refused(
            f"The preprocessor of '{where}' makes spectrograms of {said[0]} x {said[1]}, "
            f"but its network takes {shape.mels} x {shape.length}."
        )
    return shape


def describe(config: Mapping[str, Any], preprocessor: Mapping[str, Any], where: str) -> Card:
    """What the configuration says of the network."""
    shape = read_shape(config, preprocessor, where)
    return Card(
        name="",
        family="",
        layers=shape.layers,
        dims=(shape.dim,) * (shape.layers + 1),
        hop=shape.hop,
        shortest=FRAMING.shortest,
        attention=True,
        window=shape.window / SAMPLE_RATE,
        about=ABOUT,
    )


def build(card: Card, config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> Upstream:
    """The network as it is before it has learnt anything."""
    return SpectrogramTransformer(card, read_shape(config, preprocessor, card.name))


# Names that the hub's files have, and those that newer files may have, -> ours.
NAMES = [
    (r"^(?:audio_spectrogram_transformer\.)?(?:encoder\.)?", ""),
    (r"^embeddings\.patch_embeddings\.projection\.", "patches."),
    (r"^embeddings\.position_embeddings$", "positions"),
    (r"^embeddings\.", ""),
    (r"^layers?\.", "blocks."),
    (r"\.attention\.(?:attention\.)?q(?:uery|_proj)\.", ".query."),
    (r"\.attention\.(?:attention\.)?k(?:ey|_proj)\.", ".key."),
    (r"\.attention\.(?:attention\.)?v(?:alue|_proj)\.", ".value."),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".out."),
    (r"\.layernorm_before\.", ".attention_norm."),
    (r"\.layernorm_after\.", ".feed_norm."),
    (r"\.(?:intermediate\.dense|mlp\.fc1)\.", ".up."),
    (r"\.(?:output\.dense|mlp\.fc2)\.", ".down."),
]


def weights(held: Mapping[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Tensor], Sequence[str]]:
    """The weights under our names; the classifier and the norm after the last block are left out."""
    bare = {name: name.removeprefix("audio_spectrogram_transformer.") for name in held}
    unused = sorted(name for name, ours in bare.items() if ours.startswith(("classifier.", "layernorm.")))
    return renamed({name: tensor for name, tensor in held.items() if name not in unused}, NAMES), unused


class SpectrogramTransformer(Upstream):
    """The network, window by window."""

    def __init__(self, card: Card, shape: Shape) -> None:
        super().__init__()
        self.card = card
        self.shape = shape
        with torch.device("cpu"):  # the network may lie on the meta device; what is computed from nothing does not
            self.fbank = Kaldi(shape.mels, framing=FRAMING)
        rows, steps = shape.grid
        self.patches = nn.Conv2d(1, shape.dim, shape.patch, shape.strides)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.dim))
        self.distillation_token = nn.Parameter(torch.zeros(1, 1, shape.dim))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 2 + rows * steps, shape.dim))
        self.blocks = nn.ModuleList(
            Block(shape.dim, shape.heads, shape.inner, shape.activation, shape.epsilon, bias=shape.bias)
            for _ in range(shape.layers)
        )

    def frames(self, samples: int) -> int:
        return -(-FRAMING.frames(samples) // self.shape.strides[1])

    def forward(self, wavs: list[Tensor], attention: bool) -> Hidden:
        sizes = self.shape.window, self.shape.overlap, self.shape.hop
        wavs = [wav.to(self.device, torch.float32) for wav in wavs]
        return windowed(self.card, wavs, *sizes, self._window, attention)

    def spectrogram(self, wav: Tensor) -> Tensor:
        """(samples,) of at most one window -> (spectral frames of the window, mels), normalised after it was padded."""
        feature: Tensor = self.fbank(wav)
        padded = functional.pad(feature, (0, 0, 0, self.shape.length - len(feature)))
        return (padded - self.shape.mean) / (2 * self.shape.deviation)

    def _window(self, wav: Tensor, attention: bool) -> tuple[list[Tensor], list[Tensor]]:
        frames = self.frames(wav.numel())
        patches = self.patches(self.spectrogram(wav).T[None, None])[0].flatten(1).T.float()
        x = torch.cat([self.cls_token[0], self.distillation_token[0], patches]) + self.positions[0]
        states, maps = [self._steps(x, frames)], []
        for block in self.blocks:
            x, scores = block(x, attention)
            states.append(self._steps(x, frames))
            if scores is not None:
                maps.append(self._map(scores, frames))
        return states, maps

    def _steps(self, tokens: Tensor, frames: int) -> Tensor:
        return tokens[2:].view(*self.shape.grid, -1).mean(dim=0)[:frames]

    def _map(self, scores: Tensor, frames: int) -> Tensor:
        """How a time step divides its attention among those of the clip: sums over their patches, mean over its own."""
        rows, steps = self.shape.grid
        kept = scores[:, 2:, 2:].reshape(-1, rows, steps, rows, steps)[:, :, :frames, :, :frames]
        shares = kept.flatten(3).softmax(dim=-1).view(kept.shape)
        return shares.sum(dim=3).mean(dim=1)
