import json
from pathlib import Path
from typing import Any

import golden
import pytest
import torch
from checkpoints import wav2vec

from engine import checkpoint, upstream
from engine.errors import Refused
from engine.nets import wav2vec_file
from engine.nets.wav2vec import Shape, Wav2Vec
from engine.upstreams.wav2vec import LARGE
from engine.weights import Checkpoint

GOLDEN = Path(__file__).parent / "golden" / "wav2vec.json"
LAYOUTS = ["fairseq", "newer fairseq", "s3prl"]


@pytest.mark.parametrize("kind", wav2vec.SETTINGS)
@torch.inference_mode()
def test_states_convolutions_and_codes_are_those_of_the_authors_network(kind: str, tmp_path: Path) -> None:
    model = upstream.load(wav2vec.save(tmp_path, wav2vec.SETTINGS[kind], "fairseq"))
    clip = golden.sound()
    golden.check(model.encode([clip]).clip(0), GOLDEN, kind)
    taps = model.tap([clip], *(tap.name for tap in model.card.taps))
    if "codes" in taps:
        (codes,) = taps.pop("codes")
        assert codes.flatten().tolist() == json.loads(GOLDEN.read_text("utf-8"))["numbers"][f"{kind} codes"]
    golden.check([found for (found,) in taps.values()], GOLDEN, f"{kind} convolutions")


@torch.inference_mode()
def test_all_layouts_hold_the_same_network(tmp_path: Path) -> None:
    settings = wav2vec.SETTINGS["kmeans"]
    first, *others = (
        upstream.load(wav2vec.save(tmp_path / layout, settings, layout)).encode([golden.sound()]).clip(0)
        for layout in LAYOUTS
    )
    for states in others:
        assert all(torch.equal(state, expected) for state, expected in zip(states, first, strict=True))


@pytest.mark.parametrize("kind", ["plain", "kmeans", "other switches"])
@torch.inference_mode()
def test_a_long_clip_in_pieces_gives_the_same_numbers(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = upstream.load(wav2vec.save(tmp_path, wav2vec.SETTINGS[kind], "fairseq"))
    clip = golden.sound(24_001)
    whole = model.encode([clip]).clip(0)
    monkeypatch.setattr("engine.nets.wav2vec.PIECE", 7)
    monkeypatch.setattr("engine.nets.codebooks.PIECE", 7)
    for state, expected in zip(model.encode([clip]).clip(0), whole, strict=True):
        torch.testing.assert_close(state, expected, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_the_quantizer_gives_entries_of_its_codebooks(tmp_path: Path) -> None:
    model = upstream.load(wav2vec.save(tmp_path, wav2vec.SETTINGS["gumbel"], "fairseq"))
    state = model.encode([golden.sound()]).clip(0)[1]
    (codes,) = model.tap([golden.sound()], "codes")["codes"]
    entries = wav2vec.weights(wav2vec.SETTINGS["gumbel"])["vector_quantizer.vars"][0]  # both codebooks share them
    torch.testing.assert_close(state, torch.cat([entries[codes[:, 0]], entries[codes[:, 1]]], dim=1))


def described(settings: dict[str, Any]) -> Shape:
    return wav2vec_file.shape(Checkpoint(Path("made.pt"), {}, {"args": settings}))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"aggregator": "gru"}, "has an aggregator of the kind 'gru'; the kind 'cnn' can be read."),
        ({"conv_aggregator_layers": "[(8, 3, 2)]"}, "has an aggregator that leaves out frames"),
        ({"conv_feature_layers": "[(8, 10)]"}, "channels, kernel and stride of each layer are expected"),
        ({"conv_feature_layers": "exit()"}, "is no list of convolutions"),
        ({"activation": "swish"}, "has activation 'swish'; what can be read is relu and gelu."),
        ({"vq_type": "other"}, "has a quantizer 'other'; what can be read is gumbel and kmeans."),
        ({"vq_groups": 3}, "has 3 codebooks of 8 channels together, where 8 go in."),
        ({"vq_dim": 6}, "has 2 codebooks of 6 channels together, where 8 go in."),
        ({"vq_vars": "5"}, "has vq_vars '5'; a whole number from 1 to 16384 is expected."),
        ({"log_compression": 1}, "has log_compression 1; true or false is expected."),
        ({"residual_scale": -1}, "has residual_scale -1; a number above 0 is expected."),
    ],
)
def test_what_cannot_be_read_is_said(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused) as caught:
        described({**wav2vec.SETTINGS["kmeans"], **settings})
    assert said in str(caught.value)


def test_a_setting_that_could_mean_two_things_must_be_there() -> None:
    settings = {name: value for name, value in wav2vec.PLAIN.items() if name != "log_compression"}
    with pytest.raises(Refused, match="does not say log_compression, which versions of fairseq take to be different things"):
        described(settings)


def test_weights_without_settings_are_refused() -> None:
    with pytest.raises(Refused, match="holds weights of wav2vec but no settings"):
        wav2vec_file.shape(Checkpoint(Path("bare.pt"), wav2vec.weights(wav2vec.PLAIN), {}))


def test_the_other_layout_is_named(tmp_path: Path) -> None:
    name = wav2vec.save(tmp_path, wav2vec.PLAIN, "s3prl")
    with pytest.raises(Refused, match="is wav2vec or vq-wav2vec, as S3PRL converts it: write 's3prl:"):
        upstream.find(name.replace("s3prl:", "author:"))
    assert checkpoint.recognise(Path(name.removeprefix("s3prl:"))) == name


def test_what_predicts_the_future_is_left_out(tmp_path: Path) -> None:
    model = upstream.load(wav2vec.save(tmp_path, wav2vec.PLAIN, "fairseq"))
    assert model.loaded is not None
    assert model.loaded.unused == tuple(f"model.wav2vec_predictions.project_to_steps.{kind}" for kind in ("bias", "weight"))
    assert model.loaded.parameters == model.card.parameters


def test_the_published_card_says_what_the_network_of_the_paper_is() -> None:
    cards = {card.name: card for card in checkpoint.published("author")}
    large = cards["author:wav2vec_large"]
    with torch.device("meta"):
        network = Wav2Vec(large, LARGE)
    assert sum(parameter.numel() for parameter in network.parameters()) == large.parameters
    assert (large.layers, len(large.dims), large.hop, large.shortest) == (12, 13, 160, 465)
    assert not cards["author:vq-wav2vec"].differentiable
    assert cards["author:vq-wav2vec_kmeans"].layers == 13
