"""WavLM and UniSpeech-SAT as Microsoft saves them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoints import microsoft
from fairseq_weights import compare, save, wave

from engine import upstream
from engine.errors import Refused


@pytest.mark.parametrize(
    ("case", "make"),
    [("wavlm", microsoft.wavlm), ("wavlm large", microsoft.wavlm_large), ("unispeech-sat", microsoft.unispeech_sat)],
)
@torch.inference_mode()
def test_every_state_is_that_of_the_reference(case: str, make: Callable[[Path], str], tmp_path: Path) -> None:
    model = upstream.load(make(tmp_path))
    compare(model.encode([wave()]).clip(0), case, "microsoft")
    assert model.loaded is not None and model.loaded.unused == ("model.mask_emb",)


def test_positions_without_their_gate_are_refused(tmp_path: Path) -> None:
    file = Path(microsoft.wavlm(tmp_path).partition(":")[2])
    content = torch.load(file)
    content["cfg"]["gru_rel_pos"] = False
    with pytest.raises(Refused, match="relative positions without a gate"):
        upstream.find(f"author:{save(tmp_path, content, 'other.pt')}")
