from pathlib import Path

import golden
import pytest
import torch
from checkpoints import pase

from engine import checkpoint, upstream
from engine.errors import Refused
from engine.nets.pase import Pase, Shape

GOLDEN = Path(__file__).parent / "golden" / "pase.json"


# A whole number of hops; a little less, where the averages run ahead of the frames; the shortest clip.
@pytest.mark.parametrize("samples", [8_000, 7_995, 471])
@torch.inference_mode()
def test_states_are_those_of_the_authors_network(samples: int, tmp_path: Path) -> None:
    model = upstream.load(pase.MAKE["plus"](tmp_path))
    golden.check(model.encode([golden.sound(samples)]).clip(0), GOLDEN, f"plus, {samples} samples")


@pytest.mark.parametrize("samples", [8_000, 8_113])
@torch.inference_mode()
def test_other_kernels_are_reflected_as_the_authors_do(samples: int, tmp_path: Path) -> None:
    model = upstream.load(pase.MAKE["trained"](tmp_path))
    golden.check(model.encode([golden.sound(samples)]).clip(0), GOLDEN, f"trained, {samples} samples")


@pytest.mark.parametrize("kind", pase.MAKE)
@torch.inference_mode()
def test_blocks_give_what_the_authors_give(kind: str, tmp_path: Path) -> None:
    model = upstream.load(pase.MAKE[kind](tmp_path))
    names = [tap.name for tap in model.card.taps]
    found = model.tap([golden.sound()], *names)
    golden.check([found[name][0] for name in names], GOLDEN, f"{kind}, blocks")


@pytest.mark.parametrize("kind", pase.MAKE)
@pytest.mark.parametrize("samples", [4_000, 3_991, 5_001])
@torch.inference_mode()
def test_a_long_clip_in_pieces_gives_the_same_numbers(
    kind: str, samples: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = upstream.load(pase.MAKE[kind](tmp_path))
    clip = golden.sound(samples)
    whole = [*model.encode([clip]).clip(0), model.tap([clip], "conv2")["conv2"][0]]
    for piece in (1, 7, 150):
        monkeypatch.setattr("engine.nets.pase.PIECE", piece)
        parts = [*model.encode([clip]).clip(0), model.tap([clip], "conv2")["conv2"][0]]
        for state, expected in zip(parts, whole, strict=True):
            torch.testing.assert_close(state, expected, atol=1e-5, rtol=1e-5)


def test_frames_are_those_of_the_convolutions() -> None:
    shape = Shape()
    assert shape.shortest == 471
    assert [shape.steps(samples)[-1] for samples in (471, 640, 100_000, 99_991, 99_990)] == [3, 4, 625, 625, 624]
    assert [tap.hop for tap in shape.taps] == [1, 10, 20, 20, 40, 40, 80, 160]


def saved(folder: Path, state: dict[str, torch.Tensor]) -> str:
    torch.save(state, folder / "pase.ckpt")
    return f"author:{folder / 'pase.ckpt'}"


def test_what_training_needed_beside_the_network_is_left_out(tmp_path: Path) -> None:
    torch.save({"state_dict": pase.weights(), "teacher": {"W.bias": torch.ones(2)}}, tmp_path / "pase.ckpt")
    model = upstream.load(f"author:{tmp_path / 'pase.ckpt'}")
    assert model.loaded is not None
    assert model.loaded.unused == ("teacher.W.bias",)
    assert model.loaded.parameters == model.card.parameters


def test_a_pase_of_another_make_is_refused(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in pase.weights().items() if not name.startswith("rnn.")}
    with pytest.raises(Refused, match=r"holds a PASE whose rnn\.layers\.0\.linear\.weight is not that of PASE\+: eight"):
        upstream.find(saved(tmp_path, state))


def test_a_convolution_of_no_width_is_refused(tmp_path: Path) -> None:
    state = pase.weights()
    state["blocks.3.conv.weight"] = torch.ones(7, 6, 1)
    with pytest.raises(Refused, match=r"has convolutions over \[20, 11, 1, 11, 11, 11, 11\] steps; from 2 to 1024"):
        upstream.find(saved(tmp_path, state))


def test_a_second_recurrent_layer_is_refused(tmp_path: Path) -> None:
    state = pase.weights() | {"rnn.layers.1.linear.bias": torch.ones(30)}
    with pytest.raises(Refused, match=r"1 are not part of this architecture \(rnn\.layers\.1\.linear\.bias\)"):
        upstream.load(saved(tmp_path, state))


def test_the_published_card_says_what_the_default_network_is() -> None:
    (card,) = (card for card in checkpoint.published("author") if card.name == "author:pase_plus")
    with torch.device("meta"):
        network = Pase(card, Shape())
    assert sum(parameter.numel() for parameter in network.parameters()) == card.parameters
