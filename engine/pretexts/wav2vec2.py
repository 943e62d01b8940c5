"""wav2vec 2.0: hidden frames are told from others of the same clip, in the words of a codebook (Baevski et al. 2020)."""

from dataclasses import replace
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from engine.nets import contrast, learnt_codes
from engine.nets.contextual import Contextual
from engine.nets.learnt_codes import GumbelCodes, Quantized
from engine.nets.wav2vec2 import Shape, Wav2Vec2
from engine.objectives.hiding import Hiding, TellsApart
from engine.objectives.pseudo_labels import Guessing, PseudoLabels
from engine.pretext import Batch, Before, Objective
from engine.training.plan import Loss, Training


class Wav2vec2(TellsApart, Guessing):
    """Hides runs of frames from a Transformer and has it tell what was there from what is hidden elsewhere in the clip.

    What was there is said in the words of two learnt codebooks, which are learnt along; a second loss sees to it that all
    of their words are used. Labels of the sound may be guessed beside it, weighed by hand or by a pretext selection (Zaiem
    et al. 2022). Sizes and rates are those of the base model; a small network, or one on features, is quicker.
    """

    paper: ClassVar[str] = "Baevski et al. 2020, arXiv:2006.11477"

    steps: int = Training.again("steps", 400_000)
    batch_seconds: float = TellsApart.again("batch_seconds", 5600.0)
    parts: int = Training.again("parts", 64)
    rate: float = Training.again("rate", 5e-4)
    warm_up: float = Training.again("warm_up", 0.08)
    beta: float = Training.again("beta", 0.98)
    epsilon: float = Training.again("epsilon", 1e-6)
    negatives: int = Field(100, ge=1, le=1000, description="Other hidden frames of the clip that each is told from.")
    codebooks: int = Field(2, ge=1, le=16, description="Codebooks, each of which gives a part of the target.")
    entries: int = Field(320, ge=2, le=4096, description="Words of each codebook.")
    target_width: int = Field(
        256, ge=2, le=4096, description="Size of a target; the codebooks share it.", json_schema_extra={"advanced": True}
    )
    diversity: float = Field(
        0.1, ge=0, le=10, description="Weight of the loss that has all words used.", json_schema_extra={"advanced": True}
    )
    hot: float = Field(
        2.0, gt=0, le=100, description="Gumbel temperature at the beginning.", json_schema_extra={"advanced": True}
    )
    cold: float = Field(0.5, gt=0, le=100, description="And at the end.", json_schema_extra={"advanced": True})
    cooling: float = Field(
        0.69, gt=0, le=1, description="Share of the steps in which it falls.", json_schema_extra={"advanced": True}
    )

    @model_validator(mode="after")
    def _codebooks_fit(self) -> Self:
        if self.target_width % self.codebooks:
            raise ValueError(f"a target of {self.target_width} cannot be shared by {self.codebooks} codebooks")
        if self.cold > self.hot:
            raise ValueError(f"the temperature falls, so that it cannot end at {self.cold} when it begins at {self.hot}")
        return self

    def shape(self) -> Shape:
        return replace(super().shape(), codebooks=self.codebooks, entries=self.entries)

    def objective(self, network: Contextual, before: Before) -> Objective:  # type: ignore[override]
        labels = None
        if self.pseudo_labels:
            labels = PseudoLabels(self.shares(), network.width, network.card.hop, before.sound, self.seed)
        return Telling(self, network, labels)

    @classmethod
    def title(cls) -> str:
        return "wav2vec 2.0"


class Telling(Hiding):
    """The contrastive loss of wav2vec 2.0 on hidden frames, and what keeps its targets of use."""

    def __init__(self, spec: Wav2vec2, network: Contextual, labels: PseudoLabels | None = None) -> None:
        super().__init__(network, spec.chance, spec.span, spec.dropout, spec.slope)
        self.spec = spec
        self.heat = spec.hot
        self.codes = GumbelCodes(network.channels, spec.codebooks, spec.entries, spec.target_width)
        if isinstance(network, Wav2Vec2):
            assert network.quantizer is not None
            self.codes.scores = network.quantizer  # is part of the upstream, which shows its codes
        self.target = nn.Linear(spec.target_width, spec.target_width)
        self.guess = nn.Linear(network.width, spec.target_width)
        self.labels = labels  # guessed beside it, from every frame (Zaiem, Parcollet, Essid and Heba 2022)

    def prepare(self, wave: Tensor) -> tuple[Tensor, ...]:
        prepared = super().prepare(wave)
        if self.labels is None:
            return prepared
        return (*prepared, self.labels.targets(wave, self.network.frames(len(wave))))

    def begin(self, step: int, steps: int) -> None:
        """The temperature at which words are drawn falls by the same factor at each step."""
        spec = self.spec
        self.heat = learnt_codes.annealed(step, spec.hot, spec.cold, (spec.cold / spec.hot) ** (1 / (spec.cooling * steps)))

    def forward(self, batch: Batch) -> Loss:
        spec, hides = self.spec, self.hides(batch)
        local = self.local(batch)
        hidden = torch.cat(hides).to(local.device)
        states = self.network.contextual(self.seen(local, hidden), self.frames(batch))
        heard = functional.dropout(self.heard(local[hidden]), self.dropout, self.training)
        words = self.codes(heard, self.heat)
        counts = [int(each.sum()) for each in hides]
        compared = [contrast.others(n, spec.negatives, draw) for n, draw in zip(counts, batch.generators(1), strict=True)]
        scored = self.scored(self.guess(states[-1][hidden]), words, counts, compared)
        told = contrast.surprise(scored)
        spread = learnt_codes.diversity(words.likely)
        loud = local.float().square().mean() if self.learns_front else local.new_zeros(())
        # These are means over the part of a batch that is here; they weigh as much as what each hidden frame costs.
        total = told.sum() + len(told) * (spec.diversity * spread + spec.penalty * loud)
        shown = {
            "contrast": told.mean(),
            "accuracy": contrast.told_apart(scored),
            "perplexity": words.perplexity,
        }
        if self.labels is not None:
            beside = self.labels(states[-1], torch.cat(batch.part(1)))
            total = total + len(told) * beside.total / beside.count
            shown |= beside.shown
        return Loss(total, float(len(told)), shown)

    def scored(self, guesses: Tensor, words: Quantized, counts: list[int], compared: list[Tensor]) -> Tensor:
        """Every guess with the target of its frame and those of others of its clip."""
        clips = zip(
            *(each.split(counts) for each in (guesses, self.target(words.vectors), words.codes)), compared, strict=True
        )
        return torch.cat(
            [
                contrast.without_twins(contrast.cosines(guess, targets, rivals, self.spec.temperature), codes, rivals)
                for guess, targets, codes, rivals in clips
            ]
        )

    def heard(self, local: Tensor) -> Tensor:
        """What the codebooks choose by: local frames, normalised where they are learnt."""
        return self.network.projection_norm(local) if isinstance(self.network, Wav2Vec2) else local

    def unwell(self, told: dict[str, float]) -> str:
        if told["perplexity"] < 1.5:
            return (
                f"each codebook uses {told['perplexity']:.1f} of its {self.spec.entries} words, so all targets are alike "
                f"and nothing is learnt. Raise the weight of diversity ({self.spec.diversity:g}), or lower the rate."
            )
        return ""
