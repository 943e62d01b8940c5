"""Mimi's encoder: the numbers and the codes of transformers' own."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import mimi as tiny_mimi
from torch import Tensor

from engine import upstream
from engine.errors import Refused
from engine.nets import mimi
from engine.nets.mimi import Mimi

LENGTHS = (1, 640, 641, 20_001)


def wave(samples: int, seed: int = 0) -> Tensor:
    return 0.2 * torch.randn(samples, generator=torch.Generator().manual_seed(seed)) + 0.02


def heard(model: Any, sound: Tensor) -> Any:
    """What transformers makes of a sound at its rate; the last state is that of its last block."""
    model.set_attn_implementation("eager")
    blocks = model.encoder.encoder_transformer.layers
    states: list[Tensor] = []
    hooks = [blocks[0].register_forward_pre_hook(lambda block, given: states.append(given[0][0]))]
    hooks += [block.register_forward_hook(lambda block, given, out: states.append(out[0])) for block in blocks]
    out = model.encoder(sound[None, None], output_attentions=True)
    for hook in hooks:
        hook.remove()
    return states, out


@torch.inference_mode()
def test_states_maps_latents_and_codes_are_those_of_transformers(tmp_path: Path) -> None:
    ours = upstream.load(tiny_mimi.save(tmp_path))
    assert isinstance(ours, Mimi)
    assert (ours.card.hop, ours.card.sample_rate, ours.card.layers) == (960, 24_000, 2)
    model = tiny_mimi.model()
    for samples in LENGTHS:
        sound = ours.resampling(wave(samples))
        states, out = heard(model, sound)
        hidden = ours.encode([wave(samples)], attention=True)
        assert hidden.lengths.tolist() == [len(states[0])] == [-(-len(sound) // 960)]
        for state, expected in zip(hidden.clip(0), states, strict=True):
            assert torch.linalg.norm(state - expected) <= 1e-5 * torch.linalg.norm(expected)
        assert hidden.attention is not None
        for seen, expected in zip(hidden.attention, out.attentions, strict=True):
            torch.testing.assert_close(seen, expected, atol=1e-6, rtol=1e-4)
        found = ours.tap([wave(samples)], "latents", "codes")
        torch.testing.assert_close(found["latents"][0], out.latents[0].T, atol=1e-5, rtol=1e-5)
        codes = model.encode(sound[None, None]).audio_codes[0].T
        assert torch.equal(found["codes"][0], codes)
    assert len(codes.unique()) > 4


@torch.inference_mode()
def test_turns_of_queries_give_the_numbers_of_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = upstream.load(tiny_mimi.save(tmp_path))
    sound = wave(40_000)
    whole = ours.encode([sound]).clip(0)
    monkeypatch.setattr(mimi, "QUERIES", 7)
    for state, expected in zip(ours.encode([sound]).clip(0), whole, strict=True):
        torch.testing.assert_close(state, expected, atol=1e-6, rtol=1e-5)


def test_what_is_known_of_no_mimi_is_refused(tmp_path: Path) -> None:
    name = tiny_mimi.save(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    for change, said in (
        ({"num_key_value_heads": 1}, "keys shared between heads"),
        ({"audio_channels": 2}, "stereo sound"),
        ({"hidden_act": "square"}, "'square' is not known"),
        ({"frame_rate": 25.0}, "25.0 frames a second"),
    ):
        file.write_text(json.dumps(config | change))
        with pytest.raises(Refused, match=said):
            upstream.find(name)
