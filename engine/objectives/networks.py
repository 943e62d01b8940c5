"""What the forms of many pretexts ask about their network."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from engine import upstream
from engine.nets.contextual import Contextual
from engine.nets.spectral_encoder import Shape as SpectralShape
from engine.nets.spectral_encoder import SpectralEncoder
from engine.nets.wav2vec2 import Shape, Wav2Vec2
from engine.pretext import Pretext

CONVOLUTIONS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))  # kernel and stride, of wav2vec 2.0

NEARBY = "Frames around each that a convolution adds to it before the first block, as wav2vec 2.0 has it; 0 = none."


class Blocks(Pretext):
    """A pretext whose network has Transformer blocks."""

    # Where the network hears features:
    shared: ClassVar[bool] = False  # all blocks are one and the same
    norm_first: ClassVar[bool] = False  # blocks normalise what they are given, not what they give
    sinusoids: ClassVar[bool] = True  # they tell positions

    blocks: int = Field(3, ge=1, le=48, description="Transformer blocks.")
    width: int = Field(768, ge=8, le=4096, description="Size of a layer.")
    heads: int = Field(12, ge=1, le=64, description="Attention heads; the width is a multiple of them.")
    inner: int = Field(
        3072, ge=8, le=16384, description="Size of the feed-forward nets.", json_schema_extra={"advanced": True}
    )
    dropout: float = Field(
        0.1, ge=0, lt=1, description="Share of values dropped while learning.", json_schema_extra={"advanced": True}
    )

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"the width {self.width} is not a multiple of the {self.heads} heads")
        return self


class OnFeatures(Blocks):
    """A pretext whose network takes the features of another upstream, filterbanks for example."""

    features: str = Field(
        "fbank",
        description="What the network is given: the last layer of this upstream.",
        json_schema_extra={"choices": "upstreams", "advanced": True},
    )
    reduce: int = Field(1, ge=1, le=10, description="Frames that are stacked into one, which makes the network quicker.")
    nearby: int = Field(0, ge=0, le=255, description=NEARBY, json_schema_extra={"advanced": True})

    def needs(self) -> list[str]:
        return super().needs() + upstream.missing(self.features)

    def network(self) -> SpectralEncoder:
        return _over_features(self)


class OnSound(Blocks):
    """A pretext whose network takes the waveform, through the convolutions of wav2vec 2.0, or else features."""

    blocks: int = Blocks.again("blocks", 12)
    front: Literal["waveform", "features"] = Field(
        "waveform", description="What the network hears: the waveform through convolutions, or features."
    )
    channels: int = Field(
        512, ge=8, le=1024, description="Channels of the convolutions.", json_schema_extra={"when": {"front": "waveform"}}
    )
    features: str = Field(
        "mel",
        description="The last layer of this upstream.",
        json_schema_extra={"choices": "upstreams", "when": {"front": "features"}},
    )
    reduce: int = Field(
        2, ge=1, le=10, description="Frames that are stacked into one.", json_schema_extra={"when": {"front": "features"}}
    )
    nearby: int = Field(
        0,
        ge=0,
        le=255,
        description=NEARBY,
        json_schema_extra={"advanced": True, "when": {"front": "features"}},
    )
    layer_drop: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="Share of the blocks that are left out of a step.",
        json_schema_extra={"advanced": True},
    )

    def needs(self) -> list[str]:
        return super().needs() + upstream.missing(self.features)

    def network(self) -> Contextual:
        if self.front == "features":
            return _over_features(self)
        shape = self.shape()
        dims = (shape.dim,) * (shape.layers + 1)
        return Wav2Vec2(self.card(dims, shape.hop, shape.shortest, attention=True, taps=shape.taps), shape)

    def shape(self) -> Shape:
        """The network on the waveform; a method of the kin that differs says how by another shape."""
        return Shape(
            dim=self.width,
            layers=self.blocks,
            heads=self.heads,
            inner=self.inner,
            convolutions=tuple((self.channels, kernel, stride) for kernel, stride in CONVOLUTIONS),
            dropout=self.dropout,
            layer_drop=self.layer_drop,
        )


def _over_features(form: OnFeatures | OnSound) -> SpectralEncoder:
    shape = SpectralShape(
        form.features,
        form.reduce,
        form.width,
        form.blocks,
        form.heads,
        form.inner,
        form.dropout,
        form.shared,
        form.norm_first,
        form.sinusoids,
        form.nearby,
    )
    return SpectralEncoder(form.card(shape.dims, shape.hop, shape.shortest, attention=True), shape)
