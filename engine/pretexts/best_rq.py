"""BEST-RQ: what is hidden is guessed in the words of a codebook that nobody has learnt (Chiu et al., ICML 2022)."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from engine.nets.masking import runs
from engine.nets.spectra import normalise
from engine.nets.spectral_encoder import SpectralEncoder
from engine.objectives.clustered import guesses_cost, one_guess_for_all
from engine.objectives.networks import OnFeatures
from engine.pretext import Batch, Before, Objective
from engine.training.plan import Loss, Training


class BestRq(OnFeatures):
    """Puts noise in place of stretches of the features and has a Transformer guess the code of what was there.

    The code is the nearest word of a codebook after a projection. Both are drawn at random and never learnt, so that there
    is nothing to cluster and nothing that could collapse. Sizes and rates are those of the paper, whose blocks are
    Conformers, where these are Transformers that normalise their input; a small network is quicker and wants a lower rate.
    """

    paper: ClassVar[str] = "Chiu et al. 2022, arXiv:2202.01855"
    norm_first: ClassVar[bool] = True

    steps: int = Training.again("steps", 500_000)
    rate: float = Training.again("rate", 4e-3)
    warm_up: float = Training.again("warm_up", 0.05)
    beta: float = Training.again("beta", 0.98)
    features: str = OnFeatures.again("features", "mel")
    reduce: int = OnFeatures.again("reduce", 4)
    blocks: int = OnFeatures.again("blocks", 24)
    width: int = OnFeatures.again("width", 1024)
    heads: int = OnFeatures.again("heads", 8)
    inner: int = OnFeatures.again("inner", 4096)
    chance: float = Field(
        0.04, gt=0, le=0.5, description="Share of the (stacked) frames at which a hidden run begins: 0.01 of those of 10 ms."
    )
    span: int = Field(10, ge=1, le=100, description="Frames hidden in a row.")
    seen_weight: float = Field(
        0.0,
        ge=0,
        le=10,
        description="Weight of the frames that are not hidden in the loss.",
        json_schema_extra={"advanced": True},
    )
    noise: float = Field(0.1, ge=0, le=10, description="Deviation of the noise that stands in their place.")
    entries: int = Field(8192, ge=2, le=65_536, description="Words of the codebook.")
    entry_width: int = Field(16, ge=1, le=1024, description="Size of a word.", json_schema_extra={"advanced": True})

    def objective(self, network: SpectralEncoder, before: Before) -> Objective:  # type: ignore[override]
        return GuessingCodes(self, network)

    @classmethod
    def title(cls) -> str:
        return "BEST-RQ"


class GuessingCodes(Objective):
    """The cross-entropy of the codes of hidden frames."""

    def __init__(self, spec: BestRq, network: SpectralEncoder) -> None:
        super().__init__()
        self.spec, self.network = spec, network
        draw = torch.Generator().manual_seed(spec.seed)
        # Xavier's uniform bound; the words are normal, then as long as one.
        bound = (6 / (network.channels + spec.entry_width)) ** 0.5
        projection = (2 * torch.rand(network.channels, spec.entry_width, generator=draw) - 1) * bound
        words = functional.normalize(torch.randn(spec.entries, spec.entry_width, generator=draw), dim=1)
        self.register_buffer("projection", projection)
        self.register_buffer("words", words)
        self.projection: Tensor
        self.words: Tensor
        self.scores = nn.Sequential(nn.LayerNorm(network.width), nn.Linear(network.width, spec.entries))
        self.late = False

    def codes(self, features: Tensor) -> Tensor:
        """(frames,) which word is nearest to each frame, after the projection and at the length of one."""
        near = functional.normalize(normalise(features) @ self.projection.to(features.device), dim=1)
        return (near @ self.words.to(features.device).T).argmax(dim=1)

    def prepare(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network.local([wave])[0]
        return features, self.codes(features)

    def hides(self, batch: Batch) -> list[Tensor]:
        return [
            runs(len(clip), self.spec.chance, self.spec.span, draw)
            for clip, draw in zip(batch.part(), batch.generators(), strict=True)
        ]

    def begin(self, step: int, steps: int) -> None:
        self.late = step >= max(100, steps // 4)

    def forward(self, batch: Batch) -> Loss:
        clips, hides = batch.part(), self.hides(batch)
        seen = []
        for clip, hidden, draw in zip(clips, hides, batch.generators(1), strict=True):
            noise = self.spec.noise * torch.randn(int(hidden.sum()), clip.shape[1], generator=draw)
            seen.append(clip.clone())
            seen[-1][hidden.to(clip.device)] = noise.to(clip)
        hidden, codes = torch.cat(hides).to(clips[0].device), torch.cat(batch.part(1))
        states = self.network.contextual(self.network.projected(torch.cat(seen)), [len(clip) for clip in clips])
        weight = self.spec.seen_weight
        total, shown = guesses_cost(self.scored, states[-1], codes, hidden, weight, self.spec.entries)
        return Loss(total, float(len(hidden) if weight else hidden.sum()), shown)

    def scored(self, frames: Tensor) -> Tensor:
        """(frames, entries): how well each word fits."""
        scores: Tensor = self.scores(frames)
        return scores.float()

    def unwell(self, told: dict[str, float]) -> str:
        return one_guess_for_all(told, self.spec.entries, self.spec.rate) if self.late else ""
