"""DeCoAR and DeCoAR 2.0: spectrum, states and frames as the authors compute them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoints import decoar
from fairseq_weights import compare, held, wave

from engine import upstream
from engine.errors import Refused
from engine.nets.decoar import Decoar, Decoar2, decoar2_shape
from engine.upstreams.decoar import DECOAR, DECOAR2, KNOWN, KNOWN2


@pytest.mark.parametrize(("case", "make"), [("decoar", decoar.decoar), ("decoar2", decoar.decoar2)])
@torch.inference_mode()
def test_every_state_is_that_of_the_reference(case: str, make: Callable[[Path], str], tmp_path: Path) -> None:
    model = upstream.load(make(tmp_path))
    # The logarithm of a small energy makes the rounding of both sides larger.
    compare(model.encode([wave()]).clip(0), case, "decoar", tolerance=5e-5)
    assert model.card.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_what_served_training_only_is_left_out_and_named() -> None:
    _, unused = DECOAR.weights(held(decoar.decoar_content()))
    assert unused == ["model.prediction.0.bias", "model.prediction.0.weight"]


def test_a_transformer_without_its_blocks_is_refused() -> None:
    weights = {name: tensor for name, tensor in decoar.decoar2_content()["model"].items() if ".layers." not in name}
    with pytest.raises(Refused, match="begins like a DeCoAR 2.0, but its Transformer is not whole"):
        DECOAR2.describe(held({"model": weights}))


def test_published_cards_tell_what_their_networks_have() -> None:
    with torch.device("meta"):
        networks = [Decoar(KNOWN, 1024, 4), Decoar2(KNOWN2, decoar2_shape(768, 12, 3072, 128))]
    for card, network in zip((KNOWN, KNOWN2), networks, strict=True):
        assert card.parameters == sum(parameter.numel() for parameter in network.parameters())
