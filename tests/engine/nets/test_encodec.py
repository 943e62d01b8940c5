"""EnCodec's encoder: the numbers and the codes of transformers' own."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import encodec as tiny_encodec
from safetensors.torch import save_file
from torch import Tensor

from engine import upstream
from engine.errors import Refused
from engine.nets import seanet
from engine.nets.encodec import Encodec

LENGTHS = (1, 213, 214, 5_001)


def wave(samples: int, seed: int = 0) -> Tensor:
    return 0.2 * torch.randn(samples, generator=torch.Generator().manual_seed(seed)) + 0.02


def heard(model: Any, sound: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
    """What transformers makes of a sound at its rate: our states, and what comes out of each step down."""
    layers = list(model.encoder.layers)
    recurrent = next(number for number, layer in enumerate(layers) if type(layer).__name__ == "EncodecLSTM")
    seen: dict[int, Tensor] = {}
    hooks = [
        layer.register_forward_hook(lambda module, given, out, number=number: seen.__setitem__(number, out[0].T))
        for number, layer in enumerate(layers)
    ]
    latents = model.encoder(sound[None, None])[0].T
    for hook in hooks:
        hook.remove()
    steps = [number for number, layer in enumerate(layers) if getattr(getattr(layer, "conv", None), "stride", (1,))[0] > 1]
    taps = {f"conv{depth}": seen[number] for depth, number in enumerate(steps, start=1)}
    return [seen[recurrent - 1], seen[recurrent], latents], taps


@pytest.mark.parametrize("causal", [True, False])
@torch.inference_mode()
def test_states_taps_and_codes_are_those_of_transformers(causal: bool, tmp_path: Path) -> None:
    rate = 24_000 if causal else 32_000
    ours = upstream.load(tiny_encodec.save(tmp_path, causal, rate))
    assert isinstance(ours, Encodec)
    assert (ours.card.hop, ours.card.sample_rate, ours.card.dims) == (320, rate, (64, 64, 8))
    model = tiny_encodec.model(causal, rate)
    for samples in LENGTHS:
        sound = ours.resampling(wave(samples))
        states, taps = heard(model, sound)
        hidden = ours.encode([wave(samples)])
        assert hidden.lengths.tolist() == [len(states[0])]
        for state, expected in zip(hidden.clip(0), states, strict=True):
            assert torch.linalg.norm(state - expected) <= 1e-5 * torch.linalg.norm(expected)
        found = ours.tap([wave(samples)], *(tap.name for tap in ours.card.taps))
        for name, expected in taps.items():
            torch.testing.assert_close(found[name][0], expected, atol=1e-5, rtol=1e-5)
        codes = model.encode(sound[None, None], bandwidth=1.5).audio_codes[0, 0].T
        assert torch.equal(found["codes"][0], codes)
    assert len(codes.unique()) > 4


@pytest.mark.parametrize("causal", [True, False])
@torch.inference_mode()
def test_pieces_give_the_numbers_of_the_whole(causal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = upstream.load(tiny_encodec.save(tmp_path, causal))
    sound = wave(7_123)
    whole, taps = ours.encode([sound]).clip(0), ours.tap([sound], "conv1", "conv4")
    monkeypatch.setattr(seanet, "PIECE_SAMPLES", 1_500)
    for state, expected in zip(ours.encode([sound]).clip(0), whole, strict=True):
        torch.testing.assert_close(state, expected, atol=1e-6, rtol=1e-5)
    for name, (found,) in ours.tap([sound], "conv1", "conv4").items():
        torch.testing.assert_close(found, taps[name][0], atol=1e-6, rtol=1e-5)


@torch.inference_mode()
def test_the_old_names_of_normalised_weights_are_known_too(tmp_path: Path) -> None:
    name = tiny_encodec.save(tmp_path)
    expected = upstream.load(name).encode([wave(3_000)]).clip(0)
    renamed = {
        key.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for key, tensor in tiny_encodec.model().state_dict().items()
    }
    assert any(key.endswith("weight_g") for key in renamed)
    save_file({key: tensor.contiguous() for key, tensor in renamed.items()}, tmp_path / "model.safetensors")
    again = upstream.find(name).open(upstream.find(name)).eval()
    for state, before in zip(again.encode([wave(3_000)]).clip(0), expected, strict=True):
        assert torch.equal(state, before)


def test_stereo_and_levelled_sound_are_refused(tmp_path: Path) -> None:
    name = tiny_encodec.save(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    for change, said in (
        ({"audio_channels": 2}, "EnCodec for stereo"),
        ({"norm_type": "time_group_norm"}, "normalises over time"),
        ({"chunk_length_s": 1.0}, "levels or cuts its input"),
        ({"pad_mode": "circular"}, "'circular' of a convolution is not known"),
        ({"num_filters": 0}, "at least 1"),
    ):
        file.write_text(json.dumps(config | change))
        with pytest.raises(Refused, match=said):
            upstream.find(name).open(upstream.find(name))
