"""UniSpeech-SAT: clips are told apart by a question of yes or no, checked by hand, and no clip is told from itself."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from app import workbench
from engine.errors import Refused
from engine.job import JobStore
from engine.pretexts.unispeech_sat import UnispeechSat, told_apart
from engine.run import Context

TINY = {
    "corpus": "spoken:digits?voices=4",
    "front": "features",
    "targets": "mfcc",
    "iterations": 1,
    "steps": 30,
    "clusters": 12,
    "sampled": 1500,
    "batch_seconds": 8,
    "parts": 1,
    "rate": 0.005,
    "blocks": 2,
    "voice_layer": 1,
    "width": 32,
    "heads": 2,
    "inner": 64,
    "dropout": 0.0,
    "layer_drop": 0.0,
    "validate_every": 100,
}


def test_it_learns_and_its_words_stay_in_use(workspace: Path) -> None:
    spec = workbench.resolve({"run": "unispeech_sat", **TINY})
    assert isinstance(spec, UnispeechSat)
    job = JobStore().submit(spec.document)
    result = spec.run(Context(job.folder, device="cpu"))
    told = [line for line in result.table if line["split"] == "train"]
    assert told[-1]["loss"] < 0.9 * told[0]["loss"]  # type: ignore[operator]
    assert min(float(line["word_perplexity"] or 0) for line in told) > 3


def test_the_question_of_yes_or_no_by_hand() -> None:
    draws = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    random = torch.Generator().manual_seed(0)
    guesses, targets = torch.randn(5, 4, generator=random), torch.randn(5, 4, generator=random)
    clip = [0, 0, 0, 1, 1]
    doubt, right = told_apart(guesses, targets, [3, 2], draws, 6, 0.1)
    costs, rights = [], []
    for frame in range(5):
        picked = torch.randint(5, (6,), generator=torch.Generator().manual_seed(clip[frame] + 1)).tolist()
        scores = (
            torch.stack([functional.cosine_similarity(guesses[frame], targets[i], dim=0) for i in (frame, *picked)]) * 10
        )
        same = torch.tensor([1.0] + [float(clip[i] == clip[frame]) for i in picked])
        costs.append(-(same * scores.sigmoid().log() + (1 - same) * (-scores).sigmoid().log()).mean())
        rights.append(((scores >= 0).float() == same).float().mean())
    assert float(doubt) == pytest.approx(float(torch.stack(costs).mean()), rel=1e-4)
    assert float(right) == pytest.approx(float(torch.stack(rights).mean()), rel=1e-5)


def test_clips_that_differ_cost_nothing_and_clips_that_are_alike_do() -> None:
    draws = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    apart = torch.tensor([[1.0, 0.0]] * 3 + [[-1.0, 0.0]] * 3)
    assert float(told_apart(apart, apart, [3, 3], draws, 50, 0.1)[0]) < 1e-3
    assert float(told_apart(torch.ones(6, 2), torch.ones(6, 2), [3, 3], draws, 50, 0.1)[0]) > 2
    assert float(told_apart(apart, apart, [6], draws[:1], 50, 0.1)[0]) == 0  # alone, there is nothing to be told from


def test_settings_that_do_not_fit_are_said() -> None:
    with pytest.raises(Refused, match="told apart at layer 3, but the network has 2 blocks"):
        workbench.resolve({"run": "unispeech_sat", **TINY, "voice_layer": 3})
    with pytest.raises(Refused, match="cannot be shared by 3 codebooks"):
        workbench.resolve({"run": "unispeech_sat", **TINY, "codebooks": 3})
    with pytest.raises(Refused, match="cannot end at 3"):
        workbench.resolve({"run": "unispeech_sat", **TINY, "cold": 3})
