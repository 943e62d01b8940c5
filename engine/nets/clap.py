"""The audio half of CLAP as LAION trained it (Wu et al. 2023, arXiv:2211.06687): HTSAT, a Swin Transformer for sound.

Ten seconds of mel spectrogram are cut into segments that are laid on top of each other as a square picture. State 0 is
what the patches give, state i comes out of block i. Each stage of blocks halves the picture's sides and doubles the
width, so the states differ in width and in their own time steps. Here a frame is the mean over the frequency patches of a
time step, and a coarse step is repeated, so that all states have the frames of the finest: 256 in ten seconds.

A clip is repeated until it fills the window, then silence follows, as CLAP's authors do; the frames given are those of its
first turn. Beyond ten seconds they cut a piece out at random, and the fused model sees a shrunk whole beside three random
pieces: neither says when anything is heard, so a longer clip goes through in overlapping windows here. A clip within the
window is heard by the fused model as its authors' code hears one that is alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.errors import Refused
from engine.nets.clips import together
from engine.nets.describing import describing
from engine.nets.resampling import Resampling
from engine.nets.spectra import Centred, Framing
from engine.nets.swin import Block, Merge
from engine.nets.windows import stitched
from engine.upstream import Card, Hidden, Upstream
from engine.weights import renamed

ABOUT = (
    "A frame is the mean over the frequency patches of a time step; later stages have fewer time steps, each repeated. "
    "Sound brought up from 16 kHz has nothing above 8 kHz."
)


@dataclass(frozen=True)
class Shape:
    """What tells one CLAP from another."""

    dim: int  # of the first stage
    depths: tuple[int, ...]  # blocks of each stage
    heads: tuple[int, ...]  # of each stage
    ratio: float  # of the feed-forward part's width to the block's
    window: int  # side of the attention's windows, in patches
    side: int  # of the picture, in mel bands
    mels: int
    patch: int
    stride: int
    activation: str
    epsilon: float
    bias: bool  # of query, key and value
    patch_norm: bool
    fused: bool
    narrow: int  # by how much the fusion narrows its channels
    rate: int
    seconds: int
    fft: int
    step: int  # samples from one spectral frame to the next
    low: float
    high: float

    def __post_init__(self) -> None:
        smallest = self.stride * 2 ** (len(self.depths) - 1)
        if len(self.depths) != len(self.heads) or self.patch < self.stride or (self.patch - self.stride) % 2:
            raise ValueError("stages or patches do not fit together")
        if self.side % self.mels or self.mels % smallest or self.samples % self.frames:
            raise ValueError(
                f"{self.mels} mel bands, or {self.seconds} seconds, cannot be laid out as a square of {self.side}"
            )
        if self.samples // self.step + 1 > self.segments * self.side:
            raise ValueError(f"{self.seconds} seconds have more spectral frames than the picture has room for")

    @property
    def segments(self) -> int:
        """That are laid on top of each other."""
        return self.side // self.mels

    @property
    def samples(self) -> int:
        """Of a window, at the model's rate."""
        return self.seconds * self.rate

    @property
    def frames(self) -> int:
        """Of a window."""
        return self.segments * (self.side // self.stride)

    @property
    def hop(self) -> int:
        """Samples of the model's rate from one frame to the next."""
        return self.samples // self.frames

    @property
    def overlap(self) -> int:
        """Samples that two windows of a long clip share: a sixth of the window."""
        return self.frames // 12 * 2 * self.hop

    @property
    def dims(self) -> tuple[int, ...]:
        """Of each state."""
        each = [self.dim * 2**stage for stage, depth in enumerate(self.depths) for _ in range(depth)]
        return (self.dim, *each)


def read_shape(config: Mapping[str, Any], preprocessor: Mapping[str, Any], where: str) -> Shape:
    """The architecture that a configuration describes; what it leaves out has the defaults of transformers."""
    if config.get("model_type") == "clap":
        config = config.get("audio_config") or {}
    if config.get("fusion_type") == "channel_map":
        raise Refused(f"'{where}' fuses its views by channel, which no published CLAP does; it cannot be used.")
    with describing(where):
        return Shape(
            dim=int(config.get("patch_embeds_hidden_size", 96)),
            depths=tuple(int(depth) for depth in config.get("depths", (2, 2, 6, 2))),
            heads=tuple(int(heads) for heads in config.get("num_attention_heads", (4, 8, 16, 32))),
            ratio=float(config.get("mlp_ratio", 4.0)),
            window=int(config.get("window_size", 8)),
            side=int(config.get("spec_size", 256)),
            mels=int(config.get("num_mel_bins", 64)),
            patch=_square(config.get("patch_size", 4)),
            stride=_square(config.get("patch_stride", 4)),
            activation=str(config.get("hidden_act", "gelu")),
            epsilon=float(config.get("layer_norm_eps", 1e-5)),
            bias=bool(config.get("qkv_bias", True)),
            patch_norm=bool(config.get("enable_patch_layer_norm", True)),
            fused=bool(config.get("enable_fusion", False)),
            narrow=int(config.get("aff_block_r", 4)),
            rate=int(preprocessor.get("sampling_rate", 48_000)),
            seconds=int(preprocessor.get("max_length_s", 10)),
            fft=int(preprocessor.get("fft_window_size", 1024)),
            step=int(preprocessor.get("hop_length", 480)),
            low=float(preprocessor.get("frequency_min", 0)),
            high=float(preprocessor.get("frequency_max", 14_000)),
        )


def _square(size: Any) -> int:
    sides = set(size) if isinstance(size, list | tuple) else {size}
    if len(sides) != 1:
        raise ValueError(f"patches of {size} are not square")
    return int(sides.pop())


def describe(config: Mapping[str, Any], preprocessor: Mapping[str, Any], where: str) -> Card:
    """What the configuration says of the audio half."""
    shape = read_shape(config, preprocessor, where)
    return Card(
        name="",
        family="",
        layers=sum(shape.depths),
        dims=shape.dims,
        hop=shape.hop,
        shortest=1,
        sample_rate=shape.rate,
        window=float(shape.seconds),
        about=ABOUT,
    )


def build(card: Card, config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> Upstream:
    """The audio half as it is before it has learnt anything."""
    return Clap(card, read_shape(config, preprocessor, card.name))


NAMES = [
    (r"^(?:audio_model\.)?audio_encoder\.", ""),
    (r"^patch_embed\.proj\.", "patches.whole."),
    (r"^patch_embed\.mel_conv2d\.", "patches.near."),
    (r"^patch_embed\.fusion_model\.local_att\.", "patches.fusion.each."),
    (r"^patch_embed\.fusion_model\.global_att\.", "patches.fusion.all."),
    (r"^patch_embed\.norm\.", "patches.norm."),
    (r"^layers\.(\d+)\.blocks\.", r"stages.\1."),
    (r"^layers\.(\d+)\.downsample\.", r"merges.\1."),
    (r"\.attention\.self\.relative_position_bias_table$", ".distances"),
    (r"\.attention\.self\.(query|key|value)\.", r".\1."),
    (r"\.attention\.output\.dense\.", ".out."),
    (r"\.layernorm_before\.", ".attention_norm."),
    (r"\.layernorm_after\.", ".feed_norm."),
    (r"\.intermediate\.dense\.", ".up."),
    (r"\.output\.dense\.", ".down."),
]


def weights(held: Mapping[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Tensor], Sequence[str]]:
    """The weights of the audio half under our names; text, projections and the norm after the last block are left out."""
    beginning = r"audio_encoder."
    ours = {
        name
        for name in held
        if name.removeprefix("audio_model.").startswith(beginning)
        and not name.removeprefix("audio_model.").startswith(f"{beginning}norm.")
        and not name.endswith(".relative_position_index")
    }
    return renamed({name: held[name] for name in ours}, NAMES), sorted(held.keys() - ours)


class Fusion(nn.Module):
    """Weighs two views of one sound against each other, place by place (Dai et al. 2021, attentional feature fusion)."""

    def __init__(self, dim: int, narrow: int) -> None:
        super().__init__()
        inner = dim // narrow
        self.each = nn.Sequential(*_bottleneck(dim, inner))
        self.all = nn.Sequential(nn.AdaptiveAvgPool2d(1), *_bottleneck(dim, inner))

    def forward(self, whole: Tensor, near: Tensor) -> Tensor:
        both = whole + near
        share: Tensor = (self.each(both) + self.all(both)).sigmoid()
        return 2 * whole * share + 2 * near * (1 - share)


def _bottleneck(dim: int, inner: int) -> list[nn.Module]:
    return [
        nn.Conv2d(dim, inner, 1),
        nn.BatchNorm2d(inner),
        nn.ReLU(),
        nn.Conv2d(inner, dim, 1),
        nn.BatchNorm2d(dim),
    ]


class Patches(nn.Module):
    """The picture as patches: (side, side) -> (rows, columns, dim)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        around = (shape.patch - shape.stride) // 2
        self.whole = nn.Conv2d(1, shape.dim, shape.patch, shape.stride, around)
        self.norm = nn.LayerNorm(shape.dim) if shape.patch_norm else nn.Identity()
        self.fusion = Fusion(shape.dim, shape.narrow) if shape.fused else None
        # Three pieces side by side take the place of a view that is three times as wide.
        kernel, stride = (shape.patch, 3 * shape.patch), (shape.stride, 3 * shape.stride)
        self.near = nn.Conv2d(1, shape.dim, kernel, stride, around) if shape.fused else None

    def forward(self, picture: Tensor) -> Tensor:
        with torch.autocast(picture.device.type, enabled=False):  # decibels of many sizes, and statistics of few channels
            x = self.whole(picture[None, None])
            if self.fusion is not None and self.near is not None:
                near = self.near(picture[None, None]).repeat(1, 1, 1, 3)  # a short clip is all three pieces
                x = self.fusion(x, functional.pad(near, (0, x.shape[3] - near.shape[3])))
            patches: Tensor = self.norm(x[0].permute(1, 2, 0))
        return patches


class Clap(Upstream):
    """The audio half, window by window."""

    def __init__(self, card: Card, shape: Shape) -> None:
        super().__init__()
        self.card = card
        self.shape = shape
        with torch.device("cpu"):  # the network may lie on the meta device; what is computed from nothing does not
            self.resampling = Resampling(shape.rate)
            framing = Framing(window=shape.fft, hop=shape.step, fft=shape.fft, shape="periodic hann", centred=True)
            self.mel = Centred(
                shape.mels,
                framing=framing,
                rate=shape.rate,
                low=shape.low,
                high=shape.high,
                scale="htk" if shape.fused else "slaney",
                area=not shape.fused,
                precise=True,  # sound brought up has next to nothing above 8 kHz
            )
        self.batch_norm = nn.BatchNorm1d(shape.mels)
        self.patches = Patches(shape)
        side = shape.side // shape.stride
        self.stages = nn.ModuleList(
            nn.ModuleList(
                Block(
                    shape.dim * 2**stage,
                    heads,
                    int(shape.ratio * shape.dim * 2**stage),
                    side // 2**stage,
                    shape.window,
                    number % 2 == 1,
                    shape.activation,
                    shape.epsilon,
                    shape.bias,
                )
                for number in range(depth)
            )
            for stage, (depth, heads) in enumerate(zip(shape.depths, shape.heads, strict=True))
        )
        self.merges = nn.ModuleList(Merge(shape.dim * 2**stage) for stage in range(len(shape.depths) - 1))

    def frames(self, samples: int) -> int:
        return -(-self.resampling.samples(samples) // self.shape.hop)

    def forward(self, wavs: list[Tensor], attention: bool) -> Hidden:
        shape = self.shape
        sounds = [self.resampling(wav.to(self.device, torch.float32)) for wav in wavs]
        return together([stitched(sound, shape.samples, shape.overlap, shape.hop, self._window) for sound in sounds])

    def decibels(self, sound: Tensor) -> Tensor:
        """(samples,) of at most one window, at the model's rate -> (spectral frames of the window, mels)."""
        full = sound.repeat(self.shape.samples // sound.numel())
        full = functional.pad(full, (0, self.shape.samples - full.numel()))
        with torch.autocast(sound.device.type, enabled=False):
            powers: Tensor = self.mel(full)
            return 10 * powers.clamp(min=1e-10).log10()

    def picture(self, feature: Tensor) -> Tensor:
        """(spectral frames, mels) -> (side, side): segments of time on top of each other, each a picture of mels by time."""
        shape = self.shape
        with torch.autocast(feature.device.type, enabled=False):
            normed: Tensor = self.batch_norm(feature)
            if len(normed) < shape.segments * shape.side:
                size = (shape.segments * shape.side, shape.mels)
                normed = functional.interpolate(normed[None, None], size, mode="bicubic", align_corners=True)[0, 0]
        return normed.view(shape.segments, -1, shape.mels).transpose(1, 2).flatten(0, 1)

    def _window(self, sound: Tensor) -> list[Tensor]:
        frames = -(-sound.numel() // self.shape.hop)
        x = self.patches(self.picture(self.decibels(sound)))
        states = [self._steps(x, 0, frames)]
        for stage, blocks in enumerate(self.stages):
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                x = block(x)
                states.append(self._steps(x, stage, frames))
            if stage < len(self.merges):
                x = self.merges[stage](x)
        return states

    def _steps(self, x: Tensor, stage: int, frames: int) -> Tensor:
        """A picture of patches as frames: time runs along the columns of a segment, then on to the next."""
        steps = x.view(self.shape.segments, -1, *x.shape[1:]).mean(dim=1).flatten(0, 1)
        return steps.repeat_interleave(2**stage, dim=0)[:frames]
