from pathlib import Path
from typing import Any

import golden
import pytest
import torch
from checkpoints import mae_ast

from engine import checkpoint, upstream
from engine.errors import Refused
from engine.upstreams import mae_ast as family

GOLDEN = Path(__file__).parent / "golden" / "mae_ast.json"


@pytest.mark.parametrize("kind", mae_ast.MAKE)
@torch.inference_mode()
def test_states_are_those_of_the_authors_network(kind: str, tmp_path: Path) -> None:
    model = upstream.load(mae_ast.MAKE[kind](tmp_path))
    golden.check(model.encode([golden.sound()]).clip(0), GOLDEN, kind)


@torch.inference_mode()
def test_patches_of_a_time_step_share_its_attention(tmp_path: Path) -> None:
    model = upstream.load(mae_ast.MAKE["patch"](tmp_path))
    assert isinstance(model, family.MaeAst)
    (first, _) = model.encode([golden.sound()], attention=True).attention or []
    tokens = model._tokens(golden.sound())
    attended = model.blocks[0](tokens, None, True)[1][0]  # (heads, 12 * 4, 12 * 4)
    assert attended.shape == (2, 48, 48)
    by_hand = attended[1, 8:12, 20:24].sum(dim=1).mean()
    torch.testing.assert_close(first[0, 1, 2, 5], by_hand)


def test_what_only_training_needs_is_left_out(tmp_path: Path) -> None:
    for kind, norms in (("patch", 0), ("patch pre-norm", 2)):
        model = upstream.load(mae_ast.MAKE[kind](tmp_path / kind))
        assert model.loaded is not None and model.loaded.parameters == model.card.parameters
        unused = [name.removeprefix("model.") for name in model.loaded.unused]
        assert {name.split(".")[0] for name in unused if not name.startswith(("encoder", "decoder", "final"))} == {
            "batch_norm",
            "dec_sine_pos_embed",
            "enc_sine_pos_embed",
            "layer_norm",
        }
        assert sum(name.startswith("encoder.") for name in unused) == norms


@pytest.mark.parametrize(
    ("part", "changed", "said"),
    [
        ("model", {"activation_fn": "maxout"}, "has activation_fn 'maxout'; what can be read is gelu"),
        ("model", {"enc_conv_pos": True}, "tells positions by a convolution"),
        ("model", {"encoder_attention_heads": 3}, "does not describe a usable model: sizes of"),
        ("model", {"encoder_layers": "many"}, "does not describe a usable model: invalid literal"),
        ("model", {"ast_kernel_size_chan": 64}, "does not describe a usable model: sizes of"),
        ("task", {"sample_rate": 8000}, "other sounds than log mel energies at 16000 Hz"),
        ("task", {"feature_type": "mfcc"}, "other sounds than log mel energies at 16000 Hz"),
    ],
)
def test_what_cannot_be_read_is_said(part: str, changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    settings = mae_ast.settings((4, 8), False)
    settings[part] |= changed
    torch.save({"cfg": settings, "model": mae_ast.weights((4, 8))}, tmp_path / "mae_ast.pt")
    with pytest.raises(Refused, match=said):
        upstream.find(f"author:{tmp_path / 'mae_ast.pt'}")


def test_published_cards_say_what_the_networks_are() -> None:
    cards = {card.name: card for card in checkpoint.published("author") if card.family == "MAE-AST"}
    for name, shape, hop, shortest in (
        ("author:mae_ast_frame", family.FRAMES, 320, 560),
        ("author:mae_ast_patch", family.PATCHES, 2560, 2800),
    ):
        card = cards[name]
        assert (card.hop, card.shortest, card.layers, card.dims[-1]) == (hop, shortest, 12, 768)
        with torch.device("meta"):
            network = family.MaeAst(card, shape)
        assert sum(parameter.numel() for parameter in network.parameters()) == card.parameters
