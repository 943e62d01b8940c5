"""Guessing the clusters of clean speech from speech that others talk over: what WavLM and UniSpeech-SAT share."""

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from engine import corpus
from engine.nets.contextual import Contextual
from engine.nets.mixing import mix
from engine.objectives.clustered import Clustered, Guessing
from engine.pretext import Batch, Before, Sound
from engine.synthesis import conditions

POOL_SECONDS = 1800.0  # sound that is laid over other sound is drawn from so much, which stays in memory
VOICES = (-5.0, 5.0)  # decibels by which a clip is louder than the other voice
NOISES = (-5.0, 20.0)  # ... and than noise


class MixedClustered(Clustered):
    """A pretext whose network guesses the clusters of clean speech while it hears others, or noise, over some of it."""

    mixed: float = Field(0.2, ge=0, le=1, description="Share of the clips that other sound is laid over.")
    noisy: float = Field(0.0, ge=0, le=1, description="Share of these where it is noise, and not another clip.")
    noise: str = Field(
        "",
        description="Recordings of noise; without any, white and pink noise is made.",
        json_schema_extra={"choices": "corpora", "advanced": True},
    )

    def needs(self) -> list[str]:
        return super().needs() + (corpus.missing(self.noise) if self.noise else [])


class GuessingClean(Guessing):
    """The same loss; the labels are those of the clip before anything was laid over it."""

    def __init__(self, spec: MixedClustered, network: Contextual, before: Before) -> None:
        super().__init__(spec, network, before)
        self.mixed, self.noisy = spec.mixed, spec.noisy
        self.voices = _pool(before.sound, spec.seed) if spec.mixed > 0 and spec.noisy < 1 else []
        self.noises: list[Tensor] = []
        if spec.noise and spec.mixed * spec.noisy > 0:
            self.noises = _pool(Sound(list(corpus.find(spec.noise).utterances()), 0.0), spec.seed)

    def prepare(self, wave: Tensor) -> tuple[Tensor, ...]:
        """The waveform itself too, where it is not what the network hears."""
        return super().prepare(wave) if self.learns_front else (*super().prepare(wave), wave)

    def local(self, batch: Batch) -> Tensor:
        waves = batch.part(0 if self.learns_front else 2)
        mixed = [self.overlaid(wave, draw) for wave, draw in zip(waves, batch.generators(1), strict=True)]
        heard = [
            whole if wave is clean else (wave if self.learns_front else self.network.local([wave])[0])
            for whole, clean, wave in zip(batch.part(), waves, mixed, strict=True)
        ]
        clips = [(clip, *rest[1:]) for clip, rest in zip(heard, batch.clips, strict=True)]
        return super().local(Batch(clips, batch.numbers, batch.seeds))

    def overlaid(self, wave: Tensor, generator: torch.Generator) -> Tensor:
        """A clip as the network hears it: most of them as they are."""
        if float(torch.rand((), generator=generator)) >= self.mixed:
            return wave
        noise = float(torch.rand((), generator=generator)) < self.noisy
        low, high = NOISES if noise else VOICES
        decibels = low + (high - low) * float(torch.rand((), generator=generator))
        return mix(wave, self._other(noise, len(wave), generator), decibels, generator)

    def _other(self, noise: bool, length: int, generator: torch.Generator) -> Tensor:
        pool = self.noises if noise else self.voices
        if pool:
            return pool[int(torch.randint(len(pool), (), generator=generator))]
        kind = sorted(conditions.NOISES)[int(torch.randint(len(conditions.NOISES), (), generator=generator))]
        random = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
        return torch.from_numpy(conditions.NOISES[kind](length, random))


def _pool(sound: Sound, seed: int) -> list[Tensor]:
    order = torch.randperm(len(sound), generator=torch.Generator().manual_seed(seed)).tolist()
    waves: list[Tensor] = []
    seconds = 0.0
    while order and seconds < POOL_SECONDS:
        number = order.pop()
        waves.append(sound.wave(number))
        seconds += sound.pieces[number].seconds
    return waves
