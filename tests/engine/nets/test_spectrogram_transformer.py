"""The Audio Spectrogram Transformer: the numbers of transformers' own, from the sound on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import ast as tiny_ast
from safetensors.torch import save_file
from torch import Tensor

from engine import upstream
from engine.errors import Refused
from engine.nets.spectrogram_transformer import SpectrogramTransformer

LENGTHS = (400, 1_999, 2_000, 17_000, 32_000)


def wave(samples: int, seed: int = 0) -> Tensor:
    return 0.2 * torch.randn(samples, generator=torch.Generator().manual_seed(seed)) + 0.02


def heard(model: Any, sound: Tensor) -> Any:
    """What transformers makes of a sound: the spectrogram, the states of all tokens, and the maps."""
    values = tiny_ast.extractor()(sound.numpy(), sampling_rate=16_000, return_tensors="pt")["input_values"]
    model.set_attn_implementation("eager")
    out = model(values, output_hidden_states=True, output_attentions=True)
    return values[0], out.hidden_states, out.attentions


@torch.inference_mode()
def test_front_end_and_states_are_those_of_transformers(tmp_path: Path) -> None:
    ours = upstream.load(tiny_ast.save(tmp_path))
    assert isinstance(ours, SpectrogramTransformer)
    rows, steps = ours.shape.grid
    assert (rows, steps) == (3, 20)
    model = tiny_ast.model().audio_spectrogram_transformer
    for samples in LENGTHS:
        sound = wave(samples)
        spectrogram, states, _ = heard(model, sound)
        torch.testing.assert_close(ours.spectrogram(sound), spectrogram, atol=2e-5, rtol=1e-5)
        hidden = ours.encode([sound])
        frames = -(-(1 + (samples - 400) // 160) // 10)
        assert hidden.lengths.tolist() == [frames]
        for state, tokens in zip(hidden.clip(0), states, strict=True):
            expected = tokens[0, 2:].view(rows, steps, -1).mean(dim=0)[:frames]
            assert torch.linalg.norm(state - expected) <= 1e-5 * torch.linalg.norm(expected)


@torch.inference_mode()
def test_maps_are_those_of_transformers_summed_over_patches(tmp_path: Path) -> None:
    ours = upstream.load(tiny_ast.save(tmp_path, labels=False))
    sound = wave(17_000)
    _, _, attentions = heard(tiny_ast.model(labels=False), sound)
    maps = ours.encode([sound], attention=True).attention
    assert maps is not None
    for seen, tokens in zip(maps, attentions, strict=True):
        kept = tokens[0, :, 2:, 2:].view(2, 3, 20, 3, 20)[:, :, :11, :, :11]
        shares = kept / kept.sum(dim=(3, 4), keepdim=True)
        torch.testing.assert_close(seen[0], shares.sum(dim=3).mean(dim=1), atol=1e-6, rtol=1e-4)
    with pytest.raises(Refused, match="up to 2.0 seconds; this one has 2.5"):
        ours.encode([wave(40_000)], attention=True)


def test_the_names_of_newer_files_are_known_too(tmp_path: Path) -> None:
    model = tiny_ast.model(labels=False)
    name = tiny_ast.save(tmp_path, labels=False)
    sound = wave(9_000)
    expected = upstream.load(name).encode([sound]).clip(0)
    save_file({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, tmp_path / "model.safetensors")
    for state, before in zip(
        upstream.find(name).open(upstream.find(name)).eval().encode([sound]).clip(0), expected, strict=True
    ):
        assert torch.equal(state, before)


def test_a_spectrogram_of_another_size_is_refused(tmp_path: Path) -> None:
    name = tiny_ast.save(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"max_length": 512}))
    with pytest.raises(Refused, match="makes spectrograms of 36 x 512, but its network takes 36 x 208"):
        upstream.find(name)
