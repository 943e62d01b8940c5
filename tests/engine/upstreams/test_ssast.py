from pathlib import Path

import golden
import pytest
import torch
from checkpoints import ssast
from torch import Tensor

from engine import checkpoint, upstream
from engine.errors import Refused
from engine.nets.spectrogram_transformer import SpectrogramTransformer
from engine.upstreams import ssast as family

GOLDEN = Path(__file__).parent / "golden" / "ssast.json"


@pytest.mark.parametrize("kind", ssast.MAKE)
@torch.inference_mode()
def test_states_are_those_of_the_authors_network(kind: str, tmp_path: Path) -> None:
    model = upstream.load(ssast.MAKE[kind](tmp_path))
    for samples in (8_000, 18_000):
        golden.check(model.encode([golden.sound(samples)]).clip(0), GOLDEN, f"{kind} {samples}")


@torch.inference_mode()
def test_a_long_clip_goes_through_in_windows(tmp_path: Path) -> None:
    model = upstream.load(ssast.MAKE["patch"](tmp_path))
    assert model.card.window == 1.2
    clip = golden.sound(40_000)
    states = model.encode([clip]).clip(0)
    first = model.encode([clip[:19_200]]).clip(0)
    assert len(states[0]) == model.frames(40_000) == 25
    for state, expected in zip(states, first, strict=True):
        torch.testing.assert_close(state[:10], expected[:10])


def test_what_training_added_is_left_out(tmp_path: Path) -> None:
    model = upstream.load(ssast.MAKE["frame"](tmp_path))
    assert model.loaded is not None and model.loaded.parameters == model.card.parameters
    unused = {name.removeprefix("module.").removeprefix("v.").split(".")[0] for name in model.loaded.unused}
    assert unused == {"norm", "head", "head_dist", "cpredlayer", "gpredlayer", "mask_embed", "p_input_fdim", "p_input_tdim"}


@pytest.mark.parametrize(
    ("name", "tensor", "said"),
    [
        (
            "v.patch_embed.proj.weight",
            torch.ones(64, 1, 8, 8),
            "has patches of 8 x 8; what can be read is 16 x 16 or 128 x 2",
        ),
        ("p_input_tdim", torch.tensor(10), "trained on spectrograms of 128 x 10: too few patches"),
        (
            "p_input_tdim",
            torch.tensor(10**9),
            "trained on spectrograms of 128 x 1000000000: too few patches fit in, or too many",
        ),
        ("v.pos_embed", torch.ones(1, 9, 60), "has 2 blocks of width 60; a multiple of 64 is expected"),
    ],
)
def test_what_cannot_be_read_is_said(name: str, tensor: Tensor, said: str, tmp_path: Path) -> None:
    torch.save({**ssast.weights((16, 16)), f"module.{name}": tensor}, tmp_path / "ssast.pth")
    with pytest.raises(Refused, match=said):
        upstream.find(f"author:{tmp_path / 'ssast.pth'}")


def test_positions_of_another_grid_are_refused(tmp_path: Path) -> None:
    torch.save({**ssast.weights((16, 16)), "module.p_input_tdim": torch.tensor(256)}, tmp_path / "ssast.pth")
    with pytest.raises(Refused, match="has positions for 64 patches, not 8 x 16"):
        upstream.load(f"author:{tmp_path / 'ssast.pth'}")


def test_published_cards_say_what_the_networks_are() -> None:
    cards = {card.name: card for card in checkpoint.published("author") if card.family == "SSAST"}
    for name, kernel, hop, window in (
        ("author:ssast_frame_base", (128, 2), 160, 10.23),
        ("author:ssast_patch_base", (16, 16), 1600, 10.1),
    ):
        card = cards[name]
        assert (card.hop, card.window, card.shortest) == (hop, window, 400)
        with torch.device("meta"):
            network = SpectrogramTransformer(card, family._shape(768, 12, 3072, kernel))
        assert sum(parameter.numel() for parameter in network.parameters()) == card.parameters
