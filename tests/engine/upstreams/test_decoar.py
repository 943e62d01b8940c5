"""DeCoAR and DeCoAR 2.0: spectrum, states and frames as the authors compute them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoints import decoar
from fairseq_weights import compare, save, wave

from engine import upstream
from engine.errors import Refused


@pytest.mark.parametrize(("case", "make"), [("decoar", decoar.decoar), ("decoar2", decoar.decoar2)])
@torch.inference_mode()
def test_every_state_is_that_of_the_reference(case: str, make: Callable[[Path], str], tmp_path: Path) -> None:
    model = upstream.load(make(tmp_path))
    compare(model.encode([wave()]).clip(0), case, "decoar")
    assert model.card.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_what_served_training_only_is_named(tmp_path: Path) -> None:
    model = upstream.load(decoar.decoar(tmp_path))
    assert model.loaded is not None
    assert model.loaded.unused == ("model.prediction.0.bias", "model.prediction.0.weight")


def test_a_transformer_without_its_blocks_is_refused(tmp_path: Path) -> None:
    file = Path(decoar.decoar2(tmp_path).partition(":")[2])
    weights = {name: tensor for name, tensor in torch.load(file)["model"].items() if ".layers." not in name}
    with pytest.raises(Refused, match="begins like a DeCoAR 2.0, but its Transformer is not whole"):
        upstream.find(f"author:{save(tmp_path, {'model': weights}, 'other.pt')}")
