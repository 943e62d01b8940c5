"""WavLM and UniSpeech-SAT as Microsoft saves them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoints import microsoft
from fairseq_weights import compare, held, wave

from engine import upstream
from engine.errors import Refused
from engine.nets.fairseq import parameters
from engine.nets.wav2vec2 import Shape
from engine.upstreams.microsoft import KNOWN, LAYOUT


@pytest.mark.parametrize(
    ("case", "make"),
    [("wavlm", microsoft.wavlm), ("wavlm large", microsoft.wavlm_large), ("unispeech-sat", microsoft.unispeech_sat)],
)
@torch.inference_mode()
def test_every_state_is_that_of_the_reference(case: str, make: Callable[[Path], str], tmp_path: Path) -> None:
    model = upstream.load(make(tmp_path))
    compare(model.encode([wave()]).clip(0), case, "microsoft")
    assert model.loaded is not None and model.loaded.unused == ("model.mask_emb",)


def test_positions_without_their_gate_are_refused() -> None:
    with pytest.raises(Refused, match="relative positions without a gate"):
        LAYOUT.describe(held(microsoft.content({**microsoft.BASE, "gru_rel_pos": False})))


@pytest.mark.parametrize("known", [known for known in KNOWN if known[2]], ids=lambda known: known[0])
def test_published_cards_tell_what_their_networks_have(known: tuple[str, Shape, int, str, str]) -> None:
    name, shape, numbers, _, _ = known
    positions = 320 if name.startswith("wavlm") else 0
    assert parameters(replace(shape, buckets=positions)) == numbers
