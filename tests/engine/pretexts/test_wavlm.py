"""WavLM: what lies over a clip, that its labels stay those of the clean clip, and that distances between frames count."""

from pathlib import Path

import pytest
import torch

from app import workbench
from engine import corpus
from engine.errors import Refused
from engine.job import JobStore
from engine.nets.wav2vec2 import Wav2Vec2
from engine.objectives.mixed import GuessingClean
from engine.pretext import Batch, Before, Sound
from engine.pretexts.wavlm import Wavlm
from engine.run import Context

TINY = {
    "corpus": "spoken:digits?voices=4",
    "front": "features",
    "targets": "mfcc",
    "iterations": 1,
    "steps": 24,
    "clusters": 12,
    "sampled": 1500,
    "batch_seconds": 8,
    "parts": 1,
    "rate": 0.005,
    "blocks": 2,
    "width": 32,
    "heads": 2,
    "inner": 64,
    "dropout": 0.0,
    "layer_drop": 0.0,
    "channels": 16,
    "validate_every": 100,
}


def spec(**changes: object) -> Wavlm:
    found = workbench.resolve({"run": "wavlm", **TINY, **changes})
    assert isinstance(found, Wavlm)
    return found


def objective(folder: Path, **changes: object) -> GuessingClean:
    torch.manual_seed(0)
    chosen = spec(**changes)
    sound = Sound(list(corpus.find(chosen.corpus).utterances())[:12], 0.1)
    made = chosen.objective(chosen.network(), Before(sound, Context(folder, device="cpu"), 0, None))
    assert isinstance(made, GuessingClean)
    return made


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_it_learns(workspace: Path) -> None:
    job = JobStore().submit(spec().document)
    result = workbench.resolve(job.document).run(Context(job.folder, device="cpu"))
    assert result.facts["last_loss"] < 0.9 * result.facts["first_loss"]


@torch.no_grad()
@pytest.mark.parametrize("front", ["features", "waveform"])
def test_the_network_hears_the_mixture_and_guesses_the_labels_of_the_clean_clip(workspace: Path, front: str) -> None:
    made = objective(workspace, mixed=1.0, front=front).eval()
    wave = made.voices[0]
    clip = made.prepare(wave)
    assert torch.equal(clip[1], made.labels(wave, made.network.frames(len(wave)), 0.02))
    batch = Batch([clip], [0], [7])
    heard = made.overlaid(wave, batch.generators(1)[0])
    assert 0 < int((heard != wave).sum()) <= len(wave) // 2
    torch.testing.assert_close(made.local(batch), made.network.local([heard])[0])
    # Other seeds lay other sound elsewhere; the same seed does the same, whatever company the clip has.
    both = made.local(Batch([made.prepare(made.voices[1]), clip], [1, 0], [8, 7]))
    torch.testing.assert_close(both[-made.network.frames(len(wave)) :], made.local(batch))
    assert not torch.equal(made.local(Batch([clip], [0], [9])), made.local(batch))


def test_a_fifth_of_the_clips_is_mixed_and_a_tenth_of_these_with_noise(workspace: Path) -> None:
    made = objective(workspace)
    made.voices = [torch.ones(4000)]  # what is added tells which it was
    wave = torch.ones(4000)
    voices = noises = 0
    for seed in range(3000):
        added = made.overlaid(wave, draw(seed)) - wave
        covered = added[added != 0]
        if len(covered):
            noise = float(covered.std(correction=0)) > 1e-4 * float(covered.abs().mean())
            voices, noises = voices + (not noise), noises + noise
    assert voices + noises == pytest.approx(600, abs=70) and noises == pytest.approx(60, abs=22)


def test_noise_of_a_corpus_is_used_and_a_corpus_that_is_not_there_is_said(workspace: Path) -> None:
    made = objective(workspace, noise="spoken:digits?voices=4", mixed=1.0, noisy=1.0)
    assert made.voices == [] and len(made.noises) > 4
    wave = made.noises[0]
    assert not torch.equal(made.overlaid(wave, draw(1)), wave)
    assert "no-such" in spec(noise="no-such").needs()[0]


def test_heads_heed_distances_through_gates(workspace: Path) -> None:
    network = spec(front="waveform").network()
    assert isinstance(network, Wav2Vec2) and network.distances is not None
    assert network.distances.weight.shape == (320, 2)
    objective(workspace, front="waveform")
    x = torch.randn(20, 32, generator=draw(0))
    state = network.contextual(x, [20])[-1]
    state.sum().backward()
    assert network.distances.weight.grad is not None and float(network.distances.weight.grad.abs().sum()) > 0
    assert spec(front="waveform", buckets=0).network().distances is None  # type: ignore[union-attr]
    with pytest.raises(Refused, match="cannot be told apart"):
        spec(buckets=2)
