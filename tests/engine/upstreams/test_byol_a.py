from pathlib import Path

import golden
import pytest
import torch
from checkpoints import byol_a

from engine import checkpoint, upstream
from engine.errors import Refused
from engine.upstreams import byol_a as family

GOLDEN = Path(__file__).parent / "golden" / "byol_a.json"


@pytest.mark.parametrize("maker", byol_a.MAKE)
@torch.inference_mode()
def test_states_are_those_of_the_authors_network(maker: str, tmp_path: Path) -> None:
    model = upstream.load(byol_a.MAKE[maker](tmp_path))
    for kind, samples in (("one second", 16_000), ("longer", 23_456)):
        golden.check(model.encode([golden.sound(samples)]).clip(0), GOLDEN, kind)


@torch.inference_mode()
def test_silence_lies_where_the_authors_put_it(tmp_path: Path) -> None:
    clip = golden.sound(16_000)
    clip[4_000:12_000] = 0
    states = upstream.load(byol_a.MAKE["plain"](tmp_path)).encode([clip]).clip(0)
    golden.check(states, GOLDEN, "one second, half of it silent")


@torch.inference_mode()
def test_mean_and_maximum_over_time_are_the_vector_of_a_clip(tmp_path: Path) -> None:
    states = upstream.load(byol_a.MAKE["plain"](tmp_path)).encode([golden.sound(16_000)]).clip(0)
    golden.check([(states[-1].mean(dim=0) + states[-1].amax(dim=0))[None]], GOLDEN, "clip vector")


@torch.inference_mode()
def test_a_long_clip_in_pieces_gives_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = upstream.load(byol_a.MAKE["plain"](tmp_path))
    clip = golden.sound(40_123)
    whole, taps = model.encode([clip]).clip(0), model.tap([clip], "conv1", "conv2")
    monkeypatch.setattr(family, "PIECE", 7 * family.STRIDE)
    for state, expected in zip(model.encode([clip]).clip(0), whole, strict=True):
        torch.testing.assert_close(state, expected, atol=1e-6, rtol=1e-5)
    for name, found in model.tap([clip], "conv1", "conv2").items():
        torch.testing.assert_close(found[0], taps[name][0], atol=1e-6, rtol=1e-5)


@torch.inference_mode()
def test_taps_are_what_each_pooling_leaves(tmp_path: Path) -> None:
    model = upstream.load(byol_a.MAKE["plain"](tmp_path))
    taps = model.tap([golden.sound()], "conv1", "conv2", "conv3")
    assert [tuple(found[0].shape) for found in taps.values()] == [(25, 2048), (12, 1024), (6, 512)]
    assert torch.equal(taps["conv3"][0], model.encode([golden.sound()]).clip(0)[0])


def test_what_else_a_trainer_saved_is_left_out(tmp_path: Path) -> None:
    model = upstream.load(byol_a.MAKE["trainer"](tmp_path))
    assert model.loaded is not None and model.loaded.unused == ("state_dict.projector.weight",)
    assert model.loaded.parameters == model.card.parameters


def test_other_mel_bands_are_refused(tmp_path: Path) -> None:
    torch.save({**byol_a.weights(12), "fc.0.weight": torch.ones(12, 640)}, tmp_path / "byol.pth")
    with pytest.raises(Refused, match=r"has the shape \(12, 640\); one for 64 mel bands takes 512 inputs"):
        upstream.find(f"author:{tmp_path / 'byol.pth'}")


def test_published_cards_say_what_the_networks_are() -> None:
    cards = [card for card in checkpoint.published("author") if card.family == "BYOL-A"]
    assert [card.dims for card in cards] == [(512, width, width) for width in (512, 1024, 2048)]
    for card in cards:
        with torch.device("meta"):
            network = family.ByolA(card, card.dims[-1])
        assert sum(parameter.numel() for parameter in network.parameters()) == card.parameters
