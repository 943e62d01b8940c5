"""Whisper's encoder: the numbers of transformers' own, from the sound on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import whisper as tiny_whisper
from torch import Tensor

from engine import upstream
from engine.errors import Refused
from engine.nets.whisper import Whisper

LENGTHS = (1, 319, 320, 321, 7_000, 15_999, 16_000)


def wave(samples: int, seed: int = 0) -> Tensor:
    return 0.2 * torch.randn(samples, generator=torch.Generator().manual_seed(seed)) + 0.02


def heard(model: Any, sound: Tensor, seconds: int = 1, mels: int = 80) -> Any:
    """What transformers makes of a sound, maps and all."""
    given = tiny_whisper.extractor(seconds, mels)(sound.numpy(), sampling_rate=16_000, return_tensors="pt")
    model.set_attn_implementation("eager")
    encoder = model.encoder
    states: list[Tensor] = []
    hook = encoder.layers[-1].register_forward_hook(lambda block, given, out: states.append(out))
    out = encoder(given["input_features"], output_hidden_states=True, output_attentions=True)
    hook.remove()
    return given["input_features"][0].T, [*out.hidden_states[:-1], states[0]], out


@pytest.mark.parametrize("mels", [80, 128])
@torch.inference_mode()
def test_front_end_and_states_are_those_of_transformers(mels: int, tmp_path: Path) -> None:
    ours = upstream.load(tiny_whisper.save(tmp_path, mels=mels))
    assert isinstance(ours, Whisper)
    model = tiny_whisper.model(mels=mels)
    for samples in LENGTHS:
        sound = wave(samples)
        features, states, out = heard(model, sound, mels=mels)
        torch.testing.assert_close(ours.log_mel(sound), features, atol=2e-6, rtol=1e-5)
        hidden = ours.encode([sound])
        frames = -(-samples // 320)
        assert hidden.lengths.tolist() == [frames]
        for state, expected in zip(hidden.clip(0), states, strict=True):
            assert torch.linalg.norm(state - expected[0, :frames]) <= 1e-5 * torch.linalg.norm(expected[0, :frames])
        last = model.encoder.layer_norm(hidden.clip(0)[-1])
        torch.testing.assert_close(last, out.last_hidden_state[0, :frames], atol=2e-5, rtol=1e-5)


def test_positions_of_a_new_one_are_those_of_transformers(tmp_path: Path) -> None:
    from transformers.models.whisper.modeling_whisper import sinusoids

    card = upstream.find(tiny_whisper.save(tmp_path))
    assert card.untrained is not None
    network = card.untrained(card)
    assert isinstance(network, Whisper)
    torch.testing.assert_close(network.positions.detach(), sinusoids(50, 16))


@torch.inference_mode()
def test_thirty_seconds_are_heard_at_once(tmp_path: Path) -> None:
    ours = upstream.load(tiny_whisper.save(tmp_path, seconds=30))
    assert ours.card.window == 30
    sound = wave(40_000)
    _, states, _ = heard(tiny_whisper.model(30), sound, seconds=30)
    for state, expected in zip(ours.encode([sound]).clip(0), states, strict=True):
        assert state.shape == (125, 16)
        assert torch.linalg.norm(state - expected[0, :125]) <= 1e-5 * torch.linalg.norm(expected[0, :125])


@torch.inference_mode()
def test_maps_are_those_of_transformers_divided_anew_among_the_frames_of_the_clip(tmp_path: Path) -> None:
    ours = upstream.load(tiny_whisper.save(tmp_path))
    sound = wave(7_000)
    _, _, out = heard(tiny_whisper.model(), sound)
    maps = ours.encode([sound], attention=True).attention
    assert maps is not None
    for seen, expected in zip(maps, out.attentions, strict=True):
        own = expected[0, :, :22, :22]
        torch.testing.assert_close(seen[0], own / own.sum(dim=-1, keepdim=True), atol=1e-6, rtol=1e-4)
    with pytest.raises(Refused, match="up to 1.0 seconds; this one has 1.2"):
        ours.encode([wave(20_000)], attention=True)


@torch.inference_mode()
def test_a_long_clip_is_heard_in_windows_that_overlap(tmp_path: Path) -> None:
    ours = upstream.load(tiny_whisper.save(tmp_path))
    sound = wave(40_000)
    hidden = ours.encode([sound]).clip(0)
    first, second = ours.encode([sound[:16_000]]).clip(0), ours.encode([sound[13_440:29_440]]).clip(0)
    for state, one, two in zip(hidden, first, second, strict=True):
        assert len(state) == 125
        torch.testing.assert_close(state[:46], one[:46], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(state[46:88], two[4:46], atol=1e-5, rtol=1e-5)


def test_weights_of_a_fine_tuned_one_are_found_and_the_decoder_is_told_of(tmp_path: Path) -> None:
    from transformers import WhisperForConditionalGeneration

    model = WhisperForConditionalGeneration(tiny_whisper.model().config)
    model.save_pretrained(tmp_path)
    tiny_whisper.extractor().save_pretrained(tmp_path)
    ours = upstream.load(f"hf:{tmp_path}")
    assert ours.loaded is not None
    assert "model.encoder.layer_norm.weight" in ours.loaded.unused
    assert all("decoder" in name or "layer_norm" in name or name == "proj_out.weight" for name in ours.loaded.unused)
    assert ours.card.parameters == sum(parameter.numel() for parameter in ours.parameters())


def test_a_front_end_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    name = tiny_whisper.save(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"feature_size": 128}))
    with pytest.raises(Refused, match="makes 128 mel bands of 16000 samples, but its encoder takes 80 bands"):
        upstream.find(name)
    file.write_text(json.dumps(settings | {"sampling_rate": 8_000}))
    with pytest.raises(Refused, match="trained at 8000 Hz"):
        upstream.find(name)
