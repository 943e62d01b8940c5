"""LightHuBERT: which part of the whole computes, and with which weights."""

from pathlib import Path

import pytest
import torch
from checkpoints import lighthubert as made
from fairseq_weights import compare, held, wave

from engine import upstream
from engine.errors import Refused
from engine.upstreams import lighthubert


@torch.inference_mode()
def test_the_whole_network_is_that_of_the_reference(tmp_path: Path) -> None:
    model = upstream.load(made.stage1(tmp_path))
    compare(model.encode([wave()]).clip(0), "stage1", "lighthubert")


@torch.inference_mode()
def test_the_part_of_the_network_is_that_of_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lighthubert.PARTS, "small", (64, 1, 256))
    model = upstream.load(made.small_part(tmp_path))
    assert model.card.dims == (64,) * 13
    compare(model.encode([wave()]).clip(0), "small", "lighthubert")


def test_a_part_that_is_larger_than_the_whole_is_refused() -> None:
    with pytest.raises(Refused, match="a width of 128 and 512, of which no part is known"):
        lighthubert.LAYOUT.describe(held(made.content(made.PART)))


def test_positions_that_are_not_narrowed_are_refused() -> None:
    settings = {**made.PART, "pos_conv_depth": 2, "prune_encoder_pos_conv": False}
    with pytest.raises(Refused, match="keeps the positions of the whole network"):
        lighthubert.LAYOUT.describe(held(made.content(settings)))


def test_a_front_end_of_which_nothing_is_said_normalises_after_every_convolution() -> None:
    content = made.content({**made.SETTINGS, "_name": "student_hubert", "encoder_layers": 1})
    del content["cfg"]["model"]["extractor_mode"]
    checkpoint = held(content)
    network = lighthubert.LAYOUT.build(lighthubert.LAYOUT.describe(checkpoint), checkpoint)
    assert "front.6.norm.weight" in network.state_dict()


@torch.inference_mode()
def test_the_waveform_is_always_normalised(tmp_path: Path) -> None:
    model = upstream.load(made.tiny(tmp_path))
    quiet, loud = (model.encode([size * wave()]).states[-1] for size in (0.5, 2.0))
    torch.testing.assert_close(quiet, loud, atol=1e-3, rtol=1e-3)
