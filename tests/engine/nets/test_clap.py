"""CLAP's audio half: the numbers of transformers' own, from the sound on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import clap as tiny_clap
from torch import Tensor

from engine import upstream
from engine.errors import Refused
from engine.nets.clap import Clap

LENGTHS = (1, 499, 500, 501, 9_000, 20_000, 32_000)


def wave(samples: int, seed: int = 0) -> Tensor:
    return 0.2 * torch.randn(samples, generator=torch.Generator().manual_seed(seed)) + 0.02


def heard(model: Any, sound: Tensor, fused: bool) -> tuple[Tensor, list[Tensor]]:
    """What transformers makes of a sound of 48 kHz: the spectrogram, and what goes into its blocks and comes out."""
    given = tiny_clap.extractor(fused)(sound.double().numpy(), sampling_rate=48_000, return_tensors="pt")
    encoder = model.audio_encoder
    blocks = [block for stage in encoder.layers for block in stage.blocks]
    seen: list[Tensor] = []
    hooks = [blocks[0].register_forward_pre_hook(lambda block, args: seen.append(args[0][0]))]
    hooks += [block.register_forward_hook(lambda block, args, out: seen.append(out[0][0])) for block in blocks]
    encoder(given["input_features"].float(), is_longer=given["is_longer"])
    for hook in hooks:
        hook.remove()
    return given["input_features"][0, 0], seen


@pytest.mark.parametrize(("fused", "patch_norm"), [(False, True), (True, True), (True, False)])
@torch.inference_mode()
def test_front_end_and_states_are_those_of_transformers(fused: bool, patch_norm: bool, tmp_path: Path) -> None:
    ours = upstream.load(tiny_clap.save(tmp_path, fused, patch_norm=patch_norm))
    assert isinstance(ours, Clap)
    assert ours.card.hop == 1500 and ours.card.sample_rate == 48_000 and ours.card.window == 2
    model = tiny_clap.model(fused, patch_norm=patch_norm).audio_model
    for samples in LENGTHS:
        sound = ours.resampling(wave(samples))
        assert len(sound) == 3 * samples
        spectrogram, states = heard(model, sound, fused)
        torch.testing.assert_close(ours.decibels(sound), spectrogram.float(), atol=1e-3, rtol=1e-5)
        hidden = ours.encode([wave(samples)])
        frames = -(-samples // 500)
        assert hidden.lengths.tolist() == [frames]
        for number, (state, tokens) in enumerate(zip(hidden.clip(0), states, strict=True)):
            coarser = 2 if number > 2 else 1
            side = 16 // coarser
            picture = tokens.view(4, side // 4, side, -1)  # segments of time, patches in frequency, time steps
            expected = picture.mean(dim=1).flatten(0, 1).repeat_interleave(coarser, dim=0)[:frames]
            assert torch.linalg.norm(state - expected) <= 2e-5 * torch.linalg.norm(expected)


@torch.inference_mode()
def test_a_sound_is_heard_where_it_is(tmp_path: Path) -> None:
    ours = upstream.load(tiny_clap.save(tmp_path))
    quiet = 1e-3 * wave(32_000)
    click = quiet.clone()
    click[20_000:20_400] += wave(400, seed=1)
    apart = (ours.encode([click]).clip(0)[0] - ours.encode([quiet]).clip(0)[0]).norm(dim=1)
    assert int(apart.argmax()) == 20_000 // 500


def test_what_is_no_clap_that_can_be_used_is_refused(tmp_path: Path) -> None:
    name = tiny_clap.save(tmp_path, text=False)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    for change, said in (
        ({"fusion_type": "channel_map"}, "fuses its views by channel"),
        ({"patch_stride": [4, 2]}, "not square"),
        ({"num_mel_bins": 24}, "cannot be laid out as a square of 64"),
        ({"window_size": 5}, "16 patches among windows of 5"),
    ):
        file.write_text(json.dumps(config | change))
        with pytest.raises(Refused, match=said):
            upstream.find(name)
