"""Upstreams written for transformers: it reads every weight and gives the same states."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file

from app import workbench
from engine import upstream
from engine.errors import Refused
from engine.export import export, state, write
from engine.job import JobStore
from engine.nets.wav2vec2 import Wav2Vec2, standard
from engine.pretext import PRETEXTS
from engine.run import Context

SMALL = {
    "front": "waveform",
    "channels": 8,
    "blocks": 2,
    "width": 32,
    "heads": 2,
    "inner": 48,
    "corpus": "spoken:digits?voices=4",
    "steps": 1,
    "batch_seconds": 2,
    "parts": 1,
}
KINDS = {
    "wav2vec2": "Wav2Vec2Model",
    "hubert": "HubertModel",
    "hubert-batch-norm": "HubertModel",
    "wavlm": "WavLMModel",
    "data2vec": "Data2VecAudioModel",
    "unispeech-sat": "Wav2Vec2Model",
}


def waves() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [0.3 * torch.randn(length, generator=generator) + 0.1 for length in (400, 5_000, 16_000)]


def read_by_transformers(folder: Path, kind: str) -> Any:
    import transformers

    model, told = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    assert not any(told[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


@torch.inference_mode()
def assert_same_states(network: upstream.Upstream, model: Any, folder: Path) -> None:
    from transformers import AutoFeatureExtractor

    extractor = AutoFeatureExtractor.from_pretrained(folder)
    clips = waves()
    hidden = network.eval().encode(clips)
    for index, clip in enumerate(clips):
        given = extractor(clip.numpy(), sampling_rate=16_000, return_tensors="pt")["input_values"]
        theirs = model(given, output_hidden_states=True).hidden_states
        assert len(theirs) == network.card.layers + 1
        for ours, expected in zip(hidden.clip(index), theirs, strict=True):
            assert torch.linalg.norm(ours - expected[0]) <= 1e-5 * torch.linalg.norm(expected[0])


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_transformers_reads_what_was_written_of_its_kin(kind: str, normalise: bool, tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path / "first", kind, normalise=normalise)
    name = f"hf:{tmp_path / 'first'}"
    made = export(name, tmp_path / kind)
    assert made == KINDS[kind]
    assert_same_states(upstream.load(name), read_by_transformers(tmp_path / kind, made), tmp_path / kind)


@pytest.mark.parametrize(
    ("pretext", "settings", "reader"),
    [
        ("wav2vec2", {}, "Wav2Vec2Model"),
        ("hubert", {"layer": 1}, "HubertModel"),
        ("wavlm", {"layer": 1}, "WavLMModel"),
        ("data2vec", {"top": 2}, "Data2VecAudioModel"),
    ],
)
def test_networks_that_are_trained_here_are_those_of_transformers(
    pretext: str, settings: dict[str, int], reader: str, tmp_path: Path
) -> None:
    network = PRETEXTS.get(pretext)(**SMALL, **settings).network()  # type: ignore[arg-type]
    assert isinstance(network, Wav2Vec2)
    tiny.scramble(network)
    assert write(network, tmp_path / "out") == reader
    assert_same_states(network, read_by_transformers(tmp_path / "out", reader), tmp_path / "out")
    # And the way back gives the same weights.
    again = standard(load_file(tmp_path / "out" / "model.safetensors"), network.shape)
    kept = {name: held for name, held in network.state_dict().items() if not name.startswith("quantizer.")}
    assert again.keys() == kept.keys()
    assert all(torch.allclose(again[name], held, rtol=1e-5, atol=1e-7) for name, held in kept.items())


def test_a_finished_job_is_exported_by_name(workspace: Path, tmp_path: Path) -> None:
    job = JobStore().submit(workbench.resolve({"run": "wav2vec2", **SMALL}).document)
    workbench.resolve(job.document).run(Context(job.folder, device="cpu")).save(job.result_file)
    assert export(f"job:{job.id}", tmp_path / "out") == "Wav2Vec2Model"
    assert_same_states(
        upstream.load(f"job:{job.id}"), read_by_transformers(tmp_path / "out", "Wav2Vec2Model"), tmp_path / "out"
    )
    assert upstream.load(f"job:{job.id}").card.taps[-1].name == "codes"
    assert json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())["do_normalize"] is False
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="fbank cannot be exported: transformers knows"):
        export("fbank", tmp_path / "out")
    for kind, reason in (("wav2vec2-stable", "a norm after the last one"), ("sew", "squeezes frames")):
        tiny.checkpoint(tmp_path / kind, kind)
        with pytest.raises(Refused, match=reason):
            export(f"hf:{tmp_path / kind}", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").touch()
    with pytest.raises(Refused, match="is there already"):
        export("fbank", tmp_path / "full")


@torch.no_grad()
def test_weights_are_laid_out_as_transformers_has_them() -> None:
    network = PRETEXTS.get("wav2vec2")(**SMALL).network()  # type: ignore[arg-type]
    assert isinstance(network, Wav2Vec2)
    held = state(network)
    assert held["feature_extractor.conv_layers.0.conv.weight"].shape == (8, 1, 10)
    assert torch.equal(
        held["feature_extractor.conv_layers.1.conv.weight"][3, 5], network.front[1].weight[3].view(3, 8)[:, 5]
    )
    assert held["encoder.pos_conv_embed.conv.parametrizations.weight.original0"].shape == (1, 1, 128)
    joint = [held[f"encoder.layers.1.attention.{letter}_proj.weight"] for letter in "qkv"]
    assert torch.equal(torch.cat(joint), network.blocks[1].qkv.weight)
