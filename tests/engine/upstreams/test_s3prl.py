"""Checkpoints in S3PRL's layouts: the numbers are those of S3PRL, and a file that is not quite one is refused in a sentence.

golden/s3prl.json holds what S3PRL 0.4.18 gave for the files that tests/checkpoints/s3prl.py makes and the sounds made here.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import s3prl
from torch import Tensor
from torch.nn import functional

from engine import checkpoint, unpickle, upstream, weights
from engine.errors import Refused
from engine.nets import apc, frame_transformer, npc, quantizer, wav2vec2
from engine.nets.frame_transformer import Feature, FrameTransformer
from engine.nets.spectra import Framing
from engine.upstream import Card, Upstream
from engine.upstreams import s3prl_distiller, s3prl_predictive, s3prl_transformer
from engine.weights import Checkpoint

GOLDEN = json.loads((Path(__file__).parent / "golden" / "s3prl.json").read_text("utf-8"))
# Where the recorded values stand, as shares of the last frame and of the last channel.
PLACES = ((0.0, 0.0), (0.1, 0.9), (0.25, 0.5), (0.4, 0.2), (0.5, 0.7), (0.65, 0.35), (0.8, 0.1), (1.0, 1.0))
SOUNDS = {32_123: 1, 9_000: 2}  # samples and seed; the longer one is heard in two parts by most Transformers here


def sound(samples: int) -> Tensor:
    """A rising tone in noise."""
    noise = np.random.default_rng(SOUNDS[samples]).standard_normal(samples)
    time = np.arange(samples) / 16_000
    tone = np.sin(2 * np.pi * (200 + 300 * time) * time) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time))
    return torch.from_numpy((0.2 * tone + 0.03 * noise).astype(np.float32))


@pytest.fixture(autouse=True)
def read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read by this process: the sweep of the contracts has them read by one of their own, which takes longer."""

    def read(file: Path) -> Checkpoint:
        return Checkpoint(file, *unpickle.split(torch.load(file, weights_only=False)))

    monkeypatch.setattr(weights, "read", read)


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str], Upstream]:
    """Makes the checkpoint of a kind and loads it."""
    return lambda kind: upstream.load(s3prl.EVERY[kind](tmp_path / kind))


def as_s3prl_lists(kind: str, model: Upstream, wave: Tensor) -> list[tuple[int, Tensor]]:
    """Places in S3PRL's list of states, and what stands there."""
    states = model.encode([wave]).clip(0)
    if kind in {"mockingjay", "tera", "audio-albert", "loudness", "cepstra"}:
        return list(enumerate(states))
    if kind == "spec-augment":  # S3PRL shows each state after a norm
        held = weights.read(Path(model.card.source)).under("Transformer.encoder.LayerNorm.")
        return [
            (place, functional.layer_norm(state, (16,), held[f"{place}.weight"], held[f"{place}.bias"], eps=1e-5))
            for place, state in enumerate(states)
        ]
    if kind.startswith("distiller"):  # projected features without positions, then the blocks, then guesses at the teacher
        (front,) = model.tap([wave], "conv7")["conv7"]
        return [(0, model.projection(front)), *enumerate(states[1:], start=1)]
    return list(enumerate(states[1:]))  # APC and NPC: S3PRL does not show the feature


@pytest.mark.parametrize("samples", SOUNDS)
@pytest.mark.parametrize("kind", s3prl.EVERY)
@torch.inference_mode()
def test_states_and_codes_are_those_of_s3prl(kind: str, samples: int, make: Callable[[str], Upstream]) -> None:
    model = make(kind)
    recorded = GOLDEN[kind][str(samples)]
    compare(kind, as_s3prl_lists(kind, model, sound(samples)), recorded)
    if "codes" in recorded:
        (codes,) = model.tap([sound(samples)], "codes")["codes"]
        assert codes[::10].tolist() == recorded["codes"]


@torch.inference_mode()
def test_silence_lies_where_s3prl_puts_it(make: Callable[[str], Upstream]) -> None:
    model = make("loudness")
    wave = sound(9_000)
    wave[3_000:6_000] = 0
    compare("loudness", as_s3prl_lists("loudness", model, wave), GOLDEN["loudness"]["9000, a third of it silent"])


def compare(kind: str, listed: list[tuple[int, Tensor]], recorded: dict[str, Any]) -> None:
    """States, by their places in S3PRL's list, are those that were recorded."""
    assert len(listed) == len(recorded["states"]) - (2 if kind.startswith("distiller") else 0)
    for place, state in listed:
        expected = recorded["states"][place]
        frames, dim = expected["shape"]
        assert tuple(state.shape) == (frames, dim)
        values = [state[round(f * (frames - 1)), round(d * (dim - 1))] for f, d in PLACES]
        found = torch.stack([state.double().mean(), state.double().std(), *values]).double()
        known = torch.tensor([expected["mean"], expected["std"], *expected["values"]], dtype=torch.float64)
        assert (found - known).abs().max() <= 1e-5 * expected["std"]


@pytest.mark.parametrize("kind", ["npc", "npc-last"])
def test_an_untrained_npc_hides_the_same_frames(kind: str, make: Callable[[str], Upstream]) -> None:
    model = make(kind)
    assert model.card.untrained is not None
    fresh = model.card.untrained(model.card).state_dict()
    masks = {name: tensor for name, tensor in model.state_dict().items() if name.endswith(".seen")}
    assert masks
    assert all(torch.equal(fresh[name], mask) for name, mask in masks.items())


@torch.inference_mode()
def test_a_clip_longer_than_the_window_is_cut_into_equal_parts(make: Callable[[str], Upstream]) -> None:
    model = make("tera")
    assert model.card.window == 1.5
    wave = sound(32_123)
    assert model.frames(wave.numel()) == 201  # 150 are heard at once: 101 and 100
    (feature,) = [model.features(wave)]
    parts = [model.transformer(part[None], torch.tensor([len(part)]))[0] for part in (feature[:101], feature[101:])]
    for state, *halves in zip(model.encode([wave]).clip(0), *parts, strict=True):
        torch.testing.assert_close(state, torch.cat([half[0] for half in halves]))
    with pytest.raises(Refused, match=r"clips of up to 1.5 seconds"):
        model.encode([wave], attention=True)


@pytest.mark.parametrize("kind", ["mockingjay", "apc", "distiller"])
def test_the_card_of_a_file_says_what_is_in_it(kind: str, make: Callable[[str], Upstream]) -> None:
    model = make(kind)
    card, loaded = model.card, model.loaded
    assert loaded is not None and card.parameters == loaded.parameters > 0
    assert card.about and card.paper and card.bytes == Path(card.source).stat().st_size
    heads = {"mockingjay": "SpecHead.", "apc": "model.postnet.", "distiller": "Distiller.output_layer."}
    assert {name.rsplit(".", 1)[0].startswith(heads[kind].rstrip(".")) for name in loaded.unused} == {True}


def built(card: Card) -> Upstream:
    """The network of a published checkpoint, as the papers and S3PRL's configurations describe it."""
    kaldi, mel = Framing(), Framing(fft=400, shape="periodic hann", centred=True)
    if card.family in {"Mockingjay", "TERA", "AudioALBERT"}:
        fbank = "fbank" in card.name
        feature = Feature("kaldi", kaldi, 80, deltas=2) if fbank else Feature("centred", mel, 80, level=-25.0)
        shared = card.family == "AudioALBERT"
        shape = frame_transformer.Shape(feature, 768, card.layers, 12, 3072, shared=shared)
        return FrameTransformer(card, shape)
    if card.family in {"APC", "VQ-APC"}:
        codes = (512,) if card.family == "VQ-APC" else ()
        return apc.APC(card, apc.Shape(80, 512, 3, Framing(shape="hamming"), widths=codes, entries=codes))
    if card.family == "NPC":
        return npc.NPC(card, npc.Shape(80, 512, 4, 15, 5, Framing(shape="hamming"), widths=(128,) * 4, entries=(64,) * 4))
    convolutions = ((512, 10, 5), *((512, 3, 2),) * 4, *((512, 2, 2),) * 2)
    return wav2vec2.Wav2Vec2(card, wav2vec2.Shape(768, 2, 12, 3072, convolutions, projection_norm=False))


def test_published_checkpoints_are_described_as_they_are_built() -> None:
    layouts = (s3prl_transformer.LAYOUT, s3prl_predictive.APC_LAYOUT, s3prl_predictive.NPC_LAYOUT, s3prl_distiller.LAYOUT)
    names = {card.name for layout in layouts for card in layout.published}
    assert {"s3prl:mockingjay", "s3prl:tera", "s3prl:audio_albert", "s3prl:apc", "s3prl:vq_apc", "s3prl:npc"} <= names
    for card in checkpoint.published("s3prl"):
        if card.name not in names:
            continue
        assert not card.here and card.fetch is not None
        assert card.paper and card.data and card.languages == ("en",)
        with torch.device("meta"):
            network = built(card)
        shape = network.shape  # type: ignore[attr-defined]
        assert card.parameters == sum(parameter.numel() for parameter in network.parameters()), card.name
        assert network.frames(card.shortest) >= 1
        assert network.frames(card.shortest + 10 * card.hop) == network.frames(card.shortest) + 10
        if card.family in {"APC", "VQ-APC", "NPC"}:
            assert (card.dims, card.taps) == (shape.dims, quantizer.taps(shape.entries, shape.framing.hop))
        if card.family == "DistilHuBERT":
            assert (card.hop, card.shortest, card.taps) == (shape.hop, shape.shortest, shape.taps)


def spoilt(make: Callable[..., str], folder: Path, change: Callable[[dict[str, Any]], None], **options: Any) -> str:
    """The name of a tiny checkpoint in which something was changed."""
    name = make(folder, **options)
    file = name.removeprefix("s3prl:")
    held = torch.load(file, weights_only=False)
    change(held)
    torch.save(held, file)
    return name


def _unlike(held: dict[str, Any]) -> None:
    name = "encoder.layer.2.output.dense.bias"
    held["Transformer"][name] = held["Transformer"][name] + 1


def _without_sound(held: dict[str, Any]) -> None:
    del held["Upstream_Config"]["audio"]


def _stacked(held: dict[str, Any]) -> None:
    held["Upstream_Config"]["transformer"]["downsample_rate"] = 3


def _power(held: dict[str, Any]) -> None:
    held["Upstream_Config"]["audio"]["kaldi"]["fbank"]["use_power"] = False


def _cut(held: dict[str, Any]) -> None:
    del held["model"]["rnn_layers.2.bias_hh_l0"]


def _dithered(held: dict[str, Any]) -> None:
    held["config"]["data"]["audio"]["dither"] = 1.0


def _nameless(held: dict[str, Any]) -> None:
    del held["config"]["model"]["paras"]["n_blocks"]


def _code(held: dict[str, Any]) -> None:
    held["Config"]["distiller"]["extractor_conv_feature_layers"] = "__import__('os').abort()"


def _sparse(held: dict[str, Any]) -> None:
    held["Config"]["distiller"]["attention_type"] = "sparse"


MEL = {"audio": s3prl.LOG_MEL, "inputs": 20}
SPOILT: list[tuple[Callable[..., str], dict[str, Any], Callable[[dict[str, Any]], None], str]] = [
    (s3prl.transformer, {**MEL, "share_layer": True}, _unlike, "blocks in .* differ, though its configuration says"),
    (s3prl.transformer, MEL, _without_sound, "takes features that were computed elsewhere"),
    (s3prl.transformer, MEL, _stacked, "takes several frames as one"),
    (s3prl.transformer, {"audio": s3prl.KALDI, "inputs": 36}, _power, "settings that cannot be computed here: use_power"),
    (s3prl.transformer, {**MEL, "inputs": 19}, lambda held: None, r"project.weight has shape \(16, 19\), not \(16, 20\)"),
    (s3prl.transformer, {**MEL, "hidden_act": "mish"}, lambda held: None, "activation 'mish' is not known"),
    (s3prl.apc, {}, _cut, r"1 weights are missing \(layers.2.bias_hh_l0\)"),
    (s3prl.apc, {}, _dithered, "settings that cannot be computed here: dither"),
    (s3prl.npc, {}, _nameless, r"does not describe an NPC \(KeyError\('n_blocks'\)\)"),
    (s3prl.npc, {"mask_size": 9}, lambda held: None, "leaves nothing of 15"),
    (s3prl.distiller, {}, _code, "is no list of convolutions"),
    (s3prl.distiller, {}, _sparse, "attention_type is 'sparse'"),
]


@pytest.mark.parametrize(("maker", "options", "change", "said"), SPOILT, ids=[said[:30] for *_, said in SPOILT])
def test_what_is_not_quite_a_checkpoint_is_refused_in_a_sentence(
    maker: Callable[..., str], options: dict[str, Any], change: Callable[[dict[str, Any]], None], said: str, tmp_path: Path
) -> None:
    name = spoilt(maker, tmp_path, change, **options)
    with pytest.raises(Refused, match=said):
        upstream.load(name)
