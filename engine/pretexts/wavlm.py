"""WavLM: the clusters of clean speech are guessed from speech that others talk over (Chen et al., JSTSP 2022)."""

from dataclasses import replace
from typing import ClassVar, Self

from pydantic import Field, model_validator

from engine.nets.contextual import Contextual
from engine.nets.wav2vec2 import Shape
from engine.objectives.mixed import GuessingClean, MixedClustered
from engine.pretext import Before, Objective


class Wavlm(MixedClustered):
    """Learns as HuBERT does, but other voices or noise lie over some clips, and the clusters are those of the clean clip.

    So it has to tell who the clip is of, and learns of speakers too. On waveforms its blocks know by how many frames others
    are apart, and each head decides how much it heeds that. Sizes and rates are those of the base model, but the first round
    learns from cepstra as HuBERT's does; the authors began with a trained HuBERT: targets=hf:facebook/hubert-base-ls960,
    targets_layer=6, clusters=500, iterations=1.
    """

    paper: ClassVar[str] = "Chen et al. 2022, arXiv:2110.13900"

    noisy: float = MixedClustered.again("noisy", 0.1)
    buckets: int = Field(
        320,
        ge=0,
        le=10_000,
        description="Distances between frames that are told apart; 0 = none.",
        json_schema_extra={"advanced": True, "when": {"front": "waveform"}},
    )
    furthest: int = Field(
        800,
        ge=2,
        le=10_000,
        description="Frames beyond which all distances are one.",
        json_schema_extra={"advanced": True, "when": {"front": "waveform"}},
    )

    @model_validator(mode="after")
    def _distances_fit(self) -> Self:
        if 0 < self.buckets < 4 or self.furthest <= self.buckets // 4:
            raise ValueError(
                f"{self.buckets} distances up to {self.furthest} frames cannot be told apart; it takes 4 at least, or none, "
                "and a furthest one beyond a quarter of them"
            )
        return self

    def shape(self) -> Shape:
        return replace(super().shape(), buckets=self.buckets, furthest=self.furthest)

    def objective(self, network: Contextual, before: Before) -> Objective:  # type: ignore[override]
        return GuessingClean(self, network, before)

    @classmethod
    def title(cls) -> str:
        return "WavLM"
