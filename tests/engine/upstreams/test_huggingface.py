"""Checkpoints of transformers: the same numbers as transformers itself, and a sentence for everything that is not one."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import save_file

from engine import upstream
from engine.errors import Refused, Unavailable
from engine.nets import wav2vec2_config
from engine.settings import HOUSE

LENGTHS = (400, 719, 720, 5_000, 16_000)


def waves() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [0.3 * torch.randn(length, generator=generator) + 0.1 for length in LENGTHS]


@pytest.mark.parametrize(("kind", "normalise"), [*((kind, False) for kind in tiny.MODELS), ("wav2vec2-stable", True)])
def test_hidden_states_are_those_of_transformers_for_a_clip_alone(kind: str, normalise: bool, tmp_path: Path) -> None:
    model = tiny.checkpoint(tmp_path, kind, normalise=normalise)
    model = getattr(model, "wav2vec2", model)
    ours = upstream.load(f"hf:{tmp_path}")
    with torch.inference_mode():
        hidden = ours.encode(waves())
        for clip, wave in enumerate(waves()):
            given = (wave - wave.mean()) / torch.sqrt(wave.var(unbiased=False) + 1e-7) if normalise else wave
            theirs = model(given[None], output_hidden_states=True).hidden_states
            assert len(theirs) == len(hidden.states) == ours.card.layers + 1
            for state, expected in zip(hidden.clip(clip), theirs, strict=True):
                assert torch.linalg.norm(state - expected[0]) <= 1e-5 * torch.linalg.norm(expected[0])


@pytest.mark.parametrize("kind", ["hubert", "wavlm-stable"])
def test_attention_maps_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    model = tiny.checkpoint(tmp_path, kind)
    model.set_attn_implementation("eager")
    ours = upstream.load(f"hf:{tmp_path}")
    wave = waves()[-1]
    with torch.inference_mode():
        maps = ours.encode([wave], attention=True).attention
        theirs = model(wave[None], output_attentions=True).attentions
    assert maps is not None
    for own, expected in zip(maps, theirs, strict=True):
        # transformers gives WavLM's maps as the mean over the heads.
        mean = (own.mean(dim=1), expected.mean(dim=1)) if kind.startswith("wavlm") else (own, expected)
        torch.testing.assert_close(*mean, atol=1e-5, rtol=1e-4)


def test_what_a_configuration_leaves_out_has_the_defaults_of_transformers() -> None:
    from transformers import CONFIG_MAPPING

    for kind in wav2vec2_config.PREFIXES:
        full = json.loads(json.dumps(CONFIG_MAPPING[kind]().to_dict(), default=str))
        shape = wav2vec2_config.read_shape(full, {"do_normalize": True}, "full")
        assert wav2vec2_config.read_shape({"model_type": kind}, {"sampling_rate": 16_000}, "bare") == shape


def test_a_sharded_checkpoint_and_a_pickled_one_give_the_same(tmp_path: Path) -> None:
    model = tiny.checkpoint(tmp_path / "one", "hubert")
    model.save_pretrained(tmp_path / "many", max_shard_size="4KB")
    assert (tmp_path / "many" / "model.safetensors.index.json").exists()
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_bytes((tmp_path / "one" / "config.json").read_bytes())
    torch.save(model.state_dict(), tmp_path / "pickled" / "pytorch_model.bin")
    wave = waves()[-1]
    with torch.inference_mode():
        one, many, pickled = (upstream.load(f"hf:{tmp_path / name}").encode([wave]) for name in ("one", "many", "pickled"))
    assert torch.equal(one.states[-1], many.states[-1])
    assert torch.equal(one.states[-1], pickled.states[-1])


def test_a_changed_checkpoint_has_another_revision(tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path, "hubert")
    before = upstream.find(f"hf:{tmp_path}").revision
    settings = tmp_path / "preprocessor_config.json"
    settings.write_text('{"do_normalize": true, "sampling_rate": 16000}')
    assert upstream.find(f"hf:{tmp_path}").revision != before


class _Called:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('ran')",)


def refused(folder: Path) -> str:
    with pytest.raises(Refused) as caught:
        upstream.load(f"hf:{folder}")
    return str(caught.value)


def test_what_is_not_a_checkpoint_gets_a_sentence(tmp_path: Path) -> None:
    assert "not there" in refused(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("x")
    assert "has no config.json. It holds: notes.txt" in refused(tmp_path)
    assert "a file; name the folder" in refused(tmp_path / "notes.txt")
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "bert"}')
    assert "a model of type 'bert'; the types that can be read are wav2vec2, hubert" in refused(tmp_path)
    config.write_text("\x89PNG")
    assert "not readable JSON" in refused(tmp_path)
    config.write_text("[" * 100_000)
    assert "not readable JSON" in refused(tmp_path)
    config.write_text('{"model_type": "hubert", "hidden_size": "wide"}')
    assert "does not describe a usable model" in refused(tmp_path)
    config.write_text('{"model_type": "hubert", "num_attention_heads": 0}')
    assert "at least 1" in refused(tmp_path)
    config.write_text('{"model_type": "hubert", "hidden_act": "sine"}')
    assert "activation 'sine'" in refused(tmp_path)
    config.write_text('{"model_type": "hubert"}')
    assert "holds no weights; one of model.safetensors" in refused(tmp_path)


def test_code_of_a_checkpoint_is_refused_at_any_depth(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    for values in ({"auto_map": {"AutoModel": "evil.Model"}}, {"inner": [{"deep": {"trust_remote_code": True}}]}):
        config.write_text(json.dumps({"model_type": "hubert", **values}))
        assert "Auscult never runs code of a checkpoint" in refused(tmp_path)


def test_wrong_weights_are_named(tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path, "hubert")
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    assert "cannot be read as safetensors" in refused(tmp_path)
    weights.unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(_Called()))
    assert "cannot be read as weights" in refused(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    tiny.checkpoint(tmp_path / "other", "wavlm")
    weights.write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    said = refused(tmp_path)
    assert "not those of the model that its configuration describes: 7 are not part of this architecture" in said
    save_file({"encoder.layers.0.layer.weight": torch.zeros(3)}, weights)
    said = refused(tmp_path)
    assert "weights are missing (front.0.weight" in said
    assert "1 are not part of this architecture (blocks.0.layer.weight)" in said
    config = json.loads((tmp_path / "config.json").read_text())
    weights.write_bytes(whole)
    (tmp_path / "config.json").write_text(json.dumps({**config, "intermediate_size": 25}))
    assert "6 do not fit (blocks.0.up.weight has shape (24, 16), not (25, 16)" in refused(tmp_path)


def test_offline_a_known_model_names_what_is_here(workspace: Path) -> None:
    card = upstream.find("hf:facebook/hubert-base-ls960")
    assert (card.layers, card.dims[0], card.hop, card.here) == (12, 768, 320, False)
    with pytest.raises(Unavailable, match=r"hubert-base-ls960 is not on this machine.*Usable without the network: .*fbank"):
        upstream.load(card.name)
    with pytest.raises(Unavailable, match="somebody/else is not on this machine"):
        upstream.find("hf:somebody/else")
    with pytest.raises(Refused, match="neither a folder here nor a name"):
        upstream.find("hf:nonsense")


def test_cards_are_known_without_the_heavy_packages() -> None:
    script = (
        "import sys; from engine import upstream; cards = list(upstream.cards()); assert len(cards) > 50, len(cards);"
        "print([name for name in ('transformers', 'torchaudio', 'huggingface_hub', 'safetensors') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=HOUSE, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
