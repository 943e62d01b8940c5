"""UniSpeech-SAT: clusters are guessed, and clips are told apart halfway (Chen et al., ICASSP 2022)."""

from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from engine.nets import learnt_codes
from engine.nets.contextual import Contextual
from engine.nets.learnt_codes import GumbelCodes
from engine.objectives.mixed import GuessingClean, MixedClustered
from engine.pretext import Batch, Before, Objective
from engine.training.plan import Loss


class UnispeechSat(MixedClustered):
    """Learns as HuBERT does, and at a middle layer it learns to say whether two hidden frames are of the same clip.

    Each frame there is compared with frames of this clip and of the other clips of the batch, in the words of two learnt
    codebooks. As a clip has one voice, that layer learns of speakers. Another clip is laid over some clips, as in WavLM,
    which follows this work. Sizes and rates are those of the base model, but the first round learns from cepstra.
    """

    paper: ClassVar[str] = "Chen et al. 2021, arXiv:2110.05752"

    voice_layer: int = Field(6, ge=0, le=48, description="Layer at which clips are told apart.")
    voice_weight: float = Field(1.0, ge=0, le=100, description="Weight of telling clips apart.")
    compared: int = Field(
        100, ge=1, le=10_000, description="Hidden frames of the batch that those of a clip are compared with."
    )
    codebooks: int = Field(
        2, ge=1, le=16, description="Codebooks, each of which gives a part of what frames are compared with."
    )
    entries: int = Field(320, ge=2, le=4096, description="Words of each codebook.")
    diversity: float = Field(
        0.1, ge=0, le=10, description="Weight of the loss that has all words used.", json_schema_extra={"advanced": True}
    )
    hot: float = Field(
        2.0, gt=0, le=100, description="Gumbel temperature at the beginning.", json_schema_extra={"advanced": True}
    )
    cold: float = Field(0.5, gt=0, le=100, description="And at the end.", json_schema_extra={"advanced": True})

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.voice_layer > self.blocks:
            raise ValueError(f"clips are told apart at layer {self.voice_layer}, but the network has {self.blocks} blocks")
        if self.guess_width % self.codebooks:
            raise ValueError(f"a guess of {self.guess_width} cannot be shared by {self.codebooks} codebooks")
        if self.cold > self.hot:
            raise ValueError(f"the temperature falls, so that it cannot end at {self.cold} when it begins at {self.hot}")
        return self

    def objective(self, network: Contextual, before: Before) -> Objective:  # type: ignore[override]
        return TellingClips(self, network, before)

    @classmethod
    def title(cls) -> str:
        return "UniSpeech-SAT"


class TellingClips(GuessingClean):
    """The loss on clusters, and whether two frames are of one clip as a question of yes or no."""

    def __init__(self, spec: UnispeechSat, network: Contextual, before: Before) -> None:
        super().__init__(spec, network, before)
        self.sat = spec
        self.heat = spec.hot
        self.codes = GumbelCodes(network.width, spec.codebooks, spec.entries, spec.guess_width)
        self.target = nn.Linear(spec.guess_width, spec.guess_width)
        self.voice = nn.Linear(network.width, spec.guess_width)

    def begin(self, step: int, steps: int) -> None:
        """The temperature at which words are drawn falls by the same factor at each step."""
        super().begin(step, steps)
        spec = self.sat
        self.heat = learnt_codes.annealed(step, spec.hot, spec.cold, (spec.cold / spec.hot) ** (1 / steps))

    def forward(self, batch: Batch) -> Loss:
        loss, states, hidden = self.guessed(batch)
        frames = states[self.sat.voice_layer][hidden].float()
        with torch.autocast(frames.device.type, enabled=False):
            words = self.codes(frames, self.heat)
            counts = [int(each.sum()) for each in self.hides(batch)]
            doubt, right = told_apart(
                self.voice(frames),
                self.target(words.vectors),
                counts,
                batch.generators(2),
                self.sat.compared,
                self.sat.temperature,
            )
            extra = self.sat.voice_weight * doubt + self.sat.diversity * learnt_codes.diversity(words.likely)
        shown = {"voice_loss": doubt, "voice_accuracy": right, "word_perplexity": words.perplexity}
        return Loss(loss.total + loss.count * extra, loss.count, {**loss.shown, **shown})

    def unwell(self, told: dict[str, float]) -> str:
        if self.late and told["word_perplexity"] < 1.5:
            return (
                f"each codebook uses {told['word_perplexity']:.1f} of its {self.sat.entries} words, so that clips cannot be "
                f"told apart. Raise the weight of diversity ({self.sat.diversity:g})."
            )
        return super().unwell(told)


def told_apart(
    guesses: Tensor, targets: Tensor, counts: list[int], draws: list[torch.Generator], compared: int, temperature: float
) -> tuple[Tensor, Tensor]:
    """The doubt whether two frames are of one clip (mean cross-entropy, each clip by its frames), and how often it is right.

    Every frame is compared with its own target and with as many of the batch, the same ones for all frames of a clip. They
    are drawn by each clip's generator. A clip that is alone has none to be told from and costs nothing.
    """
    if len(counts) == 1:
        return guesses.sum() * 0, guesses.new_zeros(())
    clip = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(guesses.device)
    guesses, targets = functional.normalize(guesses, dim=1), functional.normalize(targets, dim=1)
    own = (guesses * targets).sum(1, keepdim=True)
    doubts, rights = [], []
    for number, (mine, ours, draw) in enumerate(
        zip(*(torch.split(each, counts) for each in (guesses, own)), draws, strict=True)
    ):
        picked = torch.randint(len(targets), (compared,), generator=draw).to(guesses.device)
        scores = torch.cat([ours, mine @ targets[picked].T], dim=1) / temperature
        same = torch.cat([clip.new_ones(1, dtype=torch.bool), clip[picked] == number]).expand_as(scores)
        doubts.append(functional.binary_cross_entropy_with_logits(scores, same.float(), reduction="none").mean(1))
        rights.append(((scores >= 0) == same).float().mean(1))
    return torch.cat(doubts).mean(), torch.cat(rights).mean()
