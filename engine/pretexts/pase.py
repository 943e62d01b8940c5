"""PASE+: many small tasks at once on one convolutional network (Ravanelli, Zhong, Pascual, Swietojanski and others, ICASSP
2020, after Pascual, Ravanelli, Serrà, Bonafonte and Bengio, Interspeech 2019)."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from engine import upstream
from engine.audio import SAMPLE_RATE
from engine.nets import pase
from engine.objectives.pseudo_labels import Guessing, PseudoLabels, Standard, Track, head
from engine.pretext import Batch, Before, Objective, Pretext
from engine.training.optimizers import Optimizer
from engine.training.plan import Loss, Training
from engine.upstream import Card, Upstream


class Pase(Guessing):
    """Has one network guess many things of the same sound: its spectra, its samples, its pitch, its loudness and more.

    Each 10 ms frame has to give away several spectral features (mean squared error), its own samples (mean absolute error)
    and labels of the sound, each through a small net that is thrown away afterwards; the errors are summed. Every target
    but the samples has mean 0 and variance 1 over the corpus. Weights of the labels may come from a pretext selection.
    Each clip gives a chunk of two seconds to a batch. While it learns, the network's norms are those of each chunk alone, so
    that the clips of a batch do not mix. The published training also told frames of one clip from those of others, and hid
    the sound under noise; that is left out here.
    """

    paper: ClassVar[str] = "Ravanelli et al. 2020, arXiv:2001.09239"

    steps: int = Training.again("steps", 560_000)  # 200 times through 50 hours
    rate: float = Training.again("rate", 5e-4)
    optimizer: Optimizer = Training.again("optimizer", "Adam")
    warm_up: float = Training.again("warm_up", 0.0)
    decay: float = Training.again("decay", 0.0)
    batch_seconds: float = Pretext.again("batch_seconds", 64.0)
    pseudo_labels: tuple[Track, ...] = Guessing.again("pseudo_labels", ("pitch", "loudness", "voicing", "zero crossings"))
    spectra: tuple[str, ...] = Field(
        ("linear-raw", "fbank-raw", "mfcc-raw"),
        description="Features that each frame has to give away: the last layers of these upstreams.",
        json_schema_extra={"choices": "upstreams"},
    )
    samples: bool = Field(True, description="Guess the samples of the sound, too.")
    chunk: float = Field(
        2.0, ge=0.5, le=60, description="Sound that a clip gives to a batch.", json_schema_extra={"unit": "s"}
    )
    channels: int = Field(64, ge=2, le=512, description="Band-pass filters; later layers have up to eight times as many.")
    width: int = Field(256, ge=8, le=4096, description="Size of what comes out.")
    hidden: int = Field(
        256, ge=1, le=4096, description="Hidden layer of the nets that guess.", json_schema_extra={"advanced": True}
    )

    def needs(self) -> list[str]:
        reasons = super().needs() + upstream.missing(*self.spectra)
        if not (self.spectra or self.pseudo_labels or self.samples):
            reasons.append("There is nothing to guess: name spectra or pseudo-labels, or have the samples guessed.")
        return reasons or [sentence for sentence in map(_slow, self.spectra) if sentence]

    def network(self) -> pase.Pase:
        shape = pase.Shape(
            channels=tuple(self.channels * times for times in (1, 1, 2, 2, 4, 4, 8, 8)),
            recurrent=8 * self.channels,
            width=self.width,
        )
        dims = (shape.channels[-1], shape.width)
        return pase.Pase(self.card(dims, pase.HOP, shape.shortest, taps=shape.taps), shape)

    def objective(self, network: Upstream, before: Before) -> Objective:
        assert isinstance(network, pase.Pase)
        labels = None
        if shares := self.shares():
            labels = PseudoLabels(shares, self.width, pase.HOP, before.sound, self.seed, hidden=self.hidden, power=2)
        return Tasks(network, self, labels, before)

    @classmethod
    def title(cls) -> str:
        return "PASE+"


class Tasks(Objective):
    """The sum of all errors, each a mean over the values of a frame and over frames."""

    def __init__(self, network: pase.Pase, spec: Pase, labels: PseudoLabels | None, before: Before) -> None:
        super().__init__()
        self.network, self.labels = network, labels
        self.chunk = round(spec.chunk * SAMPLE_RATE / pase.HOP)
        # In a tuple: what they are made with is no part of what is trained.
        self._spectra = tuple(_opened(name) for name in spec.spectra)
        self.names = [name.removesuffix("-raw") for name in spec.spectra]
        self.dims = [spectrum.card.dims[-1] for spectrum in self._spectra]
        self.standard = Standard.of(before.sound, spec.seed, self._features) if self._spectra else None
        self.heads = nn.ModuleList(head(spec.width, dim, spec.hidden) for dim in self.dims)
        self.samples = head(spec.width, pase.HOP, spec.hidden) if spec.samples else None

    def prepare(self, wave: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self._features(wave)
        frames = min(self.network.frames(len(wave)), len(wave) // pase.HOP, len(features))
        labels = self.labels.targets(wave, frames) if self.labels else wave.new_empty(frames, 0)
        return wave, features[:frames], labels

    def forward(self, batch: Batch) -> Loss:
        waves, features, labels = [], [], []
        for (wave, feature, label), draw in zip(batch.clips, batch.generators(), strict=True):
            chunk = min(self.chunk, len(feature))
            start = int(torch.randint(len(feature) - chunk + 1, (), generator=draw))
            whole = chunk == len(feature)
            waves.append(wave if whole else wave[start * pase.HOP : (start + chunk) * pase.HOP])
            features.append(feature[start : start + chunk])
            labels.append(label[start : start + chunk])
        heard = self.network(waves, False)
        states = torch.cat([heard.clip(place)[-1][: len(part)] for place, part in enumerate(features)])
        return self._loss(states, waves, torch.cat(features), torch.cat(labels), [len(part) for part in features])

    def _loss(self, states: Tensor, waves: list[Tensor], features: Tensor, labels: Tensor, lengths: list[int]) -> Loss:
        errors = {}
        if self.standard is not None:
            wanted = torch.split(self.standard(features), self.dims, dim=1)
            for name, net, target in zip(self.names, self.heads, wanted, strict=True):
                errors[name] = (net(states) - target).square().mean(1).sum()
        if self.samples is not None:
            cut = [wave[: frames * pase.HOP].view(frames, pase.HOP) for wave, frames in zip(waves, lengths, strict=True)]
            errors["samples"] = (self.samples(states) - torch.cat(cut)).abs().mean(1).sum()
        total, count = sum(errors.values(), states.new_zeros(())), float(len(states))
        shown = {f"{name}_error": error.detach() / count for name, error in errors.items()}
        if self.labels is not None:
            guessed = self.labels(states, labels)
            total, shown = total + guessed.total, shown | guessed.shown
        return Loss(total, count, shown)

    def _features(self, wave: Tensor) -> Tensor:
        """(frames, all dims): the spectra side by side, as far as the shortest goes."""
        made = [spectrum.encode([wave]).clip(0)[-1] for spectrum in self._spectra]
        if not made:
            return wave.new_empty(len(wave) // pase.HOP, 0)
        frames = min(map(len, made))
        return torch.cat([feature[:frames].cpu() for feature in made], dim=1)


def _opened(name: str) -> Upstream:
    card = upstream.find(name)
    return card.open(card).eval()


def _slow(name: str) -> str:
    card: Card = upstream.find(name)
    if card.hop_seconds * SAMPLE_RATE == pase.HOP:
        return ""
    return (
        f"{name} gives a frame each {card.hop_seconds * 1000:g} ms, but this network one each 10 ms: choose other spectra."
    )
