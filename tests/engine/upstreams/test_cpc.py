from pathlib import Path
from typing import Any

import golden
import pytest
import torch
from checkpoints import cpc

from engine import checkpoint, upstream
from engine.errors import Refused
from engine.nets.cpc import CPC, Shape
from engine.upstreams.cpc import shape
from engine.weights import Checkpoint

GOLDEN = Path(__file__).parent / "golden" / "cpc.json"


@pytest.mark.parametrize("kind", cpc.MAKE)
@torch.inference_mode()
def test_states_are_those_of_the_authors_network(kind: str, tmp_path: Path) -> None:
    model = upstream.load(cpc.MAKE[kind](tmp_path))
    golden.check(model.encode([golden.sound()]).clip(0), GOLDEN, kind)


@torch.inference_mode()
def test_a_long_clip_in_pieces_gives_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = upstream.load(cpc.MAKE["lstm"](tmp_path))
    clip = golden.sound(24_001)
    whole, taps = model.encode([clip]).clip(0), model.tap([clip], "conv1", "conv4")
    monkeypatch.setattr("engine.nets.cpc.PIECE", 7)
    for state, expected in zip(model.encode([clip]).clip(0), whole, strict=True):
        torch.testing.assert_close(state, expected, atol=1e-5, rtol=1e-5)
    for name, found in model.tap([clip], "conv1", "conv4").items():
        torch.testing.assert_close(found[0], taps[name][0], atol=1e-5, rtol=1e-5)


def saved(folder: Path, **settings: Any) -> str:
    config = {**cpc.settings("LSTM", 1, "layerNorm", None), **settings}
    torch.save({"config": config, "weights": cpc.weights("LSTM", 1, "layerNorm")}, folder / "cpc.pt")
    return f"author:{folder / 'cpc.pt'}"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"arMode": "transformer"}, "has arMode 'transformer'; what can be read is LSTM, GRU, RNN."),
        ({"normMode": "instanceNorm"}, "has normMode 'instanceNorm'; what can be read is layerNorm, batchNorm, ID."),
        ({"encoder_type": "mfcc"}, "has encoder_type 'mfcc'; what can be read is cpc."),
        ({"hiddenGar": "6"}, "has hiddenGar '6'; a whole number from 1 to 8192 is expected."),
        ({"nLevelsGRU": 10**9}, "has nLevelsGRU 1000000000; a whole number from 1 to 8192 is expected."),
    ],
)
def test_what_cannot_be_read_is_said(settings: dict[str, Any], said: str) -> None:
    config = {**cpc.settings("LSTM", 1, "layerNorm", None), **settings}
    with pytest.raises(Refused) as caught:
        shape(Checkpoint(Path("made.pt"), {}, {"config": config}))
    assert said in str(caught.value)


def test_settings_of_another_size_are_refused(tmp_path: Path) -> None:
    name = saved(tmp_path, nLevelsGRU=2)
    with pytest.raises(Refused, match="4 weights are missing .levels.1.weight_ih_l0"):
        upstream.load(name)


def test_the_criterion_beside_the_network_is_left_out(tmp_path: Path) -> None:
    name = saved(tmp_path)
    file = Path(name.removeprefix("author:"))
    held = torch.load(file)
    held["weights"]["cpcCriterion.wPrediction.weight"] = torch.ones(2, 2)
    torch.save(held, file)
    model = upstream.load(name)
    assert model.loaded is not None
    assert model.loaded.unused == ("weights.cpcCriterion.wPrediction.weight",)
    assert model.loaded.parameters == model.card.parameters


def test_the_published_card_says_what_the_default_network_is() -> None:
    (card,) = (card for card in checkpoint.published("author") if card.name == "author:modified_cpc")
    with torch.device("meta"):
        network = CPC(card, Shape())
    assert sum(parameter.numel() for parameter in network.parameters()) == card.parameters
