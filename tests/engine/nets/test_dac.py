"""DAC's encoder: the numbers and the codes of transformers' own."""

import json
from pathlib import Path

import pytest
import torch
from checkpoints import dac as tiny_dac
from torch import Tensor

from engine import upstream
from engine.errors import Refused
from engine.nets import dac
from engine.nets.dac import Dac


def wave(samples: int, seed: int = 0) -> Tensor:
    return 0.2 * torch.randn(samples, generator=torch.Generator().manual_seed(seed)) + 0.02


@pytest.mark.parametrize("rate", tiny_dac.RATES)
@torch.inference_mode()
def test_states_taps_and_codes_are_those_of_transformers(rate: int, tmp_path: Path) -> None:
    ours = upstream.load(tiny_dac.save(tmp_path, rate))
    assert isinstance(ours, Dac)
    model = tiny_dac.model(rate)
    seen: list[Tensor] = []
    for block in model.encoder.block:
        block.register_forward_hook(lambda module, given, out: seen.append(out[0].T))
    for samples in (1, 320, 321, 4_001):
        sound = ours.resampling(wave(samples))
        values = tiny_dac.extractor(rate)(sound.numpy(), sampling_rate=rate, return_tensors="pt")["input_values"]
        seen.clear()
        latents = model.encoder(values)[0].T
        hidden = ours.encode([wave(samples)])
        assert hidden.lengths.tolist() == [len(latents)] == [-(-len(sound) // ours.card.hop)]
        (state,) = hidden.clip(0)
        assert torch.linalg.norm(state - latents) <= 1e-5 * torch.linalg.norm(latents)
        found = ours.tap([wave(samples)], *(tap.name for tap in ours.card.taps))
        for depth, expected in enumerate(list(seen), start=1):
            assert torch.linalg.norm(found[f"conv{depth}"][0] - expected) <= 1e-5 * torch.linalg.norm(expected)
        codes = model.encode(values).audio_codes[0].T
        assert torch.equal(found["codes"][0], codes)
    assert len(codes.unique()) > 4


@pytest.mark.parametrize("rate", [16_000, 44_100])
@torch.inference_mode()
def test_pieces_give_the_numbers_of_the_whole(rate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = upstream.load(tiny_dac.save(tmp_path, rate))
    sound = wave(9_123)
    (whole,), taps = ours.encode([sound]).clip(0), ours.tap([sound], "conv1", "conv3")
    monkeypatch.setattr(dac, "PIECE_SAMPLES", 500)
    (state,) = ours.encode([sound]).clip(0)
    assert torch.linalg.norm(state - whole) <= 1e-5 * torch.linalg.norm(whole)
    for name, (found,) in ours.tap([sound], "conv1", "conv3").items():
        assert torch.linalg.norm(found - taps[name][0]) <= 1e-5 * torch.linalg.norm(taps[name][0])


def test_sizes_that_make_no_network_are_refused(tmp_path: Path) -> None:
    name = tiny_dac.save(tmp_path, 16_000)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"downsampling_ratios": [2, 0]}))
    with pytest.raises(Refused, match="every size of a network is at least 1"):
        upstream.find(name)
