"""wav2vec 2.0, HuBERT and data2vec in fairseq's layouts: the same states as fairseq, and sentences where that cannot be."""

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import fairseq as made
from fairseq_weights import GOLDEN, compare, held, save, telling, wave

from engine import upstream
from engine.checkpoint import recognise
from engine.errors import Refused
from engine.nets.fairseq import parameters, read_shape
from engine.nets.front import ACTIVATIONS
from engine.upstreams.fairseq import AUTHOR, KNOWN, Known


@pytest.mark.parametrize(
    ("case", "make"),
    [
        ("wav2vec2", made.wav2vec2),
        ("wav2vec2", made.fine_tuned),
        ("hubert", made.hubert),
        ("hubert normed", made.hubert_normed),
        ("data2vec", made.data2vec),
        ("converted", made.converted),
    ],
)
@torch.inference_mode()
def test_every_state_is_that_of_the_reference(case: str, make: Callable[[Path], str], tmp_path: Path) -> None:
    name = make(tmp_path)
    assert recognise(Path(name.partition(":")[2])) == name
    compare(upstream.load(name).encode([wave()]).clip(0), case, "fairseq")


@torch.inference_mode()
def test_codes_and_convolutions_are_those_of_the_reference(tmp_path: Path) -> None:
    golden = json.loads((GOLDEN / "fairseq.json").read_text("utf-8"))
    model = upstream.load(made.wav2vec2(tmp_path))
    (codes,) = model.tap([wave()], "codes")["codes"]
    assert codes.tolist() == golden["codes"]
    for depth, expected in enumerate(golden["convolutions"], start=1):
        (found,) = model.tap([wave()], f"conv{depth}")[f"conv{depth}"]
        told = telling(found)
        assert told["shape"] == expected["shape"]
        torch.testing.assert_close(told["values"], expected["values"], atol=1e-5 * expected["std"], rtol=1e-5)


def test_the_card_says_what_the_settings_say(tmp_path: Path) -> None:
    card = upstream.find(made.wav2vec2(tmp_path))
    assert (card.layers, card.dims, card.hop, card.shortest, card.attention) == (2, (16,) * 3, 320, 400, True)
    assert [tap.name for tap in card.taps] == [*(f"conv{depth}" for depth in range(1, 8)), "codes"]
    model = upstream.load(card.name)
    computing = [parameter for name, parameter in model.named_parameters() if not name.startswith("quantizer.")]
    assert card.parameters == sum(parameter.numel() for parameter in computing)


def test_heads_and_teachers_are_left_out_and_named() -> None:
    checkpoint = held(made.data2vec_content())
    _, unused = AUTHOR.weights(checkpoint)
    assert unused == ["model._ema.layers.0.fc1.weight", "model._ema.layers.1.fc1.weight", "model.mask_emb"]
    assert AUTHOR.describe(checkpoint).family == "data2vec"


def _stored(module: str, name: str) -> type:
    """A class of a package that is not here, as a checkpoint may ask for it."""
    made = type(name, (), {"__module__": module})
    sys.modules[module] = types.ModuleType(module)
    setattr(sys.modules[module], name, made)
    return made


@torch.inference_mode()
def test_settings_may_lie_in_objects_of_omegaconf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("omegaconf", "omegaconf.dictconfig", "omegaconf.nodes")
    for name in names:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    mapping, node = _stored("omegaconf.dictconfig", "DictConfig"), _stored("omegaconf.nodes", "AnyNode")

    def wrapped(value: Any) -> Any:
        made = (mapping if isinstance(value, dict) else node)()
        content = {name: wrapped(inner) for name, inner in value.items()} if isinstance(value, dict) else value
        made.__dict__.update({"_content" if isinstance(value, dict) else "_val": content, "_metadata": None})
        return made

    content = made.hubert_content(made.HUBERT_NORMED, normalize=True)
    file = save(tmp_path, {**content, "cfg": wrapped(content["cfg"])}, "omegaconf.pt")
    compare(upstream.load(f"author:{file}").encode([wave()]).clip(0), "hubert normed", "fairseq")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"layer_type": "conformer"}, "are of the type 'conformer'"),
        ({"crop_seq_to_multiple": 4}, "a multiple of 4"),
        ({"conv_feature_layers": "__import__('os').getcwd()"}, "is no list of convolutions"),
        ({"conv_feature_layers": "[(8, 10)]"}, "channels, kernel and stride"),
        ({"activation_fn": "tanh"}, "activation 'tanh' is not known"),
        ({"encoder_layers": "many"}, "do not describe a usable model"),
        ({"encoder_attention_heads": 3}, "cannot be divided among 3"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_sentence(settings: dict[str, Any], said: str) -> None:
    content = made.hubert_content(made.HUBERT, normalize=False)
    content["cfg"]["model"].update(settings)
    with pytest.raises(Refused, match=said):
        AUTHOR.describe(held(content))


@pytest.mark.parametrize("name", ["gelu_fast", "gelu_accurate"])
def test_fairseqs_other_names_of_gelu_mean_the_one_with_a_hyperbolic_tangent(name: str) -> None:
    x = torch.linspace(-4, 4, 81)
    expected = 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))
    shape = read_shape({"activation_fn": name}, {}, "A file", normalise=False)
    torch.testing.assert_close(ACTIVATIONS[shape.activation](x), expected, atol=1e-6, rtol=0)


def test_a_block_too_few_is_named(tmp_path: Path) -> None:
    content = made.hubert_content(made.HUBERT, normalize=False)
    content["cfg"]["model"]["encoder_layers"] = 3
    with pytest.raises(Refused, match=r"12 weights are missing \(blocks\.2\."):
        upstream.load(f"author:{save(tmp_path, content)}")


def test_a_fine_tuned_file_must_tell_what_it_began_with() -> None:
    content = made.fine_tuned_content()
    del content["cfg"]["model"]["w2v_args"]
    with pytest.raises(Refused, match="was fine-tuned, and nothing in it"):
        AUTHOR.describe(held(content))


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known[0].rpartition("/")[2])
def test_published_cards_tell_what_their_networks_have(known: Known) -> None:
    assert parameters(known[2]) == known[3]
