"""torchaudio's bundles: the table says what torchaudio says, and the numbers are its numbers."""

from pathlib import Path

import pytest
import tiny
import torch
from torchaudio.models import wav2vec2_model, wavlm_model

from engine import upstream
from engine.errors import Refused, Unavailable, Unknown
from engine.nets.wav2vec2 import Shape
from engine.settings import settings
from engine.upstreams import torchaudio as family

SMALL = {
    "extractor_conv_layer_config": list(tiny.CONVOLUTIONS),
    "encoder_embed_dim": 16,
    "encoder_projection_dropout": 0.0,
    "encoder_pos_conv_kernel": 16,
    "encoder_pos_conv_groups": 4,
    "encoder_num_layers": 2,
    "encoder_num_heads": 2,
    "encoder_attention_dropout": 0.0,
    "encoder_ff_interm_features": 24,
    "encoder_ff_interm_dropout": 0.0,
    "encoder_dropout": 0.0,
    "encoder_layer_drop": 0.0,
}
FORMS = {
    "group": (wav2vec2_model, {"aux_num_out": 5}, {}),
    "stable": (wav2vec2_model, {"aux_num_out": None}, {"conv_bias": True, "norm_first": True, "normalise": 1e-5}),
    "wavlm": (
        wavlm_model,
        {"encoder_num_buckets": 40, "encoder_max_distance": 60, "aux_num_out": None},
        {"buckets": 40, "furthest": 60},
    ),
}


def bundle(form: str, monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """A small model of torchaudio, its weights where the download of `torchaudio:TINY` would lie."""
    make, own, shape = FORMS[form]
    stable = form == "stable"
    torch.manual_seed(0)
    model = make(
        extractor_mode="layer_norm" if stable else "group_norm",
        extractor_conv_bias=stable,
        encoder_layer_norm_first=stable,
        **SMALL,
        **own,
    ).eval()
    tiny.scramble(model)
    (settings().downloads / "torchaudio").mkdir(parents=True)
    torch.save(model.state_dict(), settings().downloads / "torchaudio" / "TINY.pth")
    ours = Shape(
        16,
        2,
        2,
        24,
        tiny.CONVOLUTIONS,
        position_kernel=16,
        position_groups=4,
        conv_norm="layer" if stable else "group",
        **shape,
    )
    monkeypatch.setattr(family, "BUNDLES", [("TINY", f"tiny-{form}.pth", ours, family.W2V, "")])
    monkeypatch.setattr(family, "SHAPES", {"TINY": ours})
    return model


@pytest.mark.parametrize("form", FORMS)
def test_states_are_those_of_torchaudio_for_a_clip_alone(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bundle(form, monkeypatch)
    ours = upstream.load("torchaudio:TINY")
    first: list[torch.Tensor] = []
    model.encoder.transformer.layers[0].register_forward_pre_hook(lambda module, given: first.append(given[0]))
    generator = torch.Generator().manual_seed(1)
    waves = [0.3 * torch.randn(length, generator=generator) + 0.1 for length in (400, 5_000, 16_000)]
    with torch.inference_mode():
        hidden = ours.encode(waves)
        for clip, wave in enumerate(waves):
            given = torch.nn.functional.layer_norm(wave, wave.shape) if form == "stable" else wave
            outputs, _ = model.extract_features(given[None])
            theirs = [first.pop(), *outputs]
            assert len(theirs) == len(hidden.states)
            for state, expected in zip(hidden.clip(clip), theirs, strict=True):
                assert torch.linalg.norm(state - expected[0]) <= 1e-5 * torch.linalg.norm(expected[0])


def test_the_table_says_what_torchaudio_says() -> None:
    from torchaudio.pipelines import Wav2Vec2Bundle
    from torchaudio.pipelines._wav2vec2 import impl

    theirs = {name: value for name, value in vars(impl).items() if isinstance(value, Wav2Vec2Bundle)}
    assert set(theirs) == {name for name, *_ in family.BUNDLES}
    for name, address, shape, _, _ in family.BUNDLES:
        bundle, params = theirs[name], theirs[name]._params
        assert address == bundle._path
        assert (shape.normalise is not None) == bundle._normalize_waveform
        assert f"{shape.conv_norm}_norm" == params["extractor_mode"]
        assert shape == Shape(
            dim=params["encoder_embed_dim"],
            layers=params["encoder_num_layers"],
            heads=params["encoder_num_heads"],
            inner=params["encoder_ff_interm_features"],
            convolutions=tuple(params["extractor_conv_layer_config"]),
            conv_norm=shape.conv_norm,
            conv_bias=params["extractor_conv_bias"],
            position_kernel=params["encoder_pos_conv_kernel"],
            position_groups=params["encoder_pos_conv_groups"],
            norm_first=params["encoder_layer_norm_first"],
            buckets=params.get("encoder_num_buckets", 0),
            furthest=params.get("encoder_max_distance", 800),
            normalise=shape.normalise,
        )


def test_offline_and_wrong_names_get_a_sentence() -> None:
    with pytest.raises(Unavailable, match=r"HUBERT_BASE.pth is not on this machine"):
        upstream.load("torchaudio:HUBERT_BASE")
    with pytest.raises(Unknown, match="HUBERT_BASE"):
        upstream.find("torchaudio:HUBERT_BAS")


def test_a_damaged_file_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle("group", monkeypatch)
    file: Path = settings().downloads / "torchaudio" / "TINY.pth"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(Refused, match="cannot be read as weights: it is cut short"):
        upstream.load("torchaudio:TINY")
