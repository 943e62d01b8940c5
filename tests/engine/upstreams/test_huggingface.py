"""Checkpoints of transformers: the same numbers as transformers itself, and a sentence for everything that is not one."""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import save_file

from engine import upstream
from engine.errors import Refused, Unavailable
from engine.nets import wav2vec2_config
from engine.settings import HOUSE, settings

LENGTHS = (400, 719, 720, 5_000, 16_000)


def waves() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [0.3 * torch.randn(length, generator=generator) + 0.1 for length in LENGTHS]


def given(model: Any, wave: torch.Tensor, normalise: bool) -> dict[str, torch.Tensor]:
    """What the feature extractor of the checkpoint makes of a clip."""
    from transformers import SeamlessM4TFeatureExtractor, Speech2TextFeatureExtractor

    if model.config.model_type == "speech_to_text":
        extracted = Speech2TextFeatureExtractor()(wave.numpy(), sampling_rate=16_000, return_tensors="pt")
        return {"input_features": extracted["input_features"]}
    if model.config.model_type == "wav2vec2-bert":
        extracted = SeamlessM4TFeatureExtractor()(wave.numpy(), sampling_rate=16_000, return_tensors="pt")
        return {name: extracted[name] for name in ("input_features", "attention_mask")}
    wave = (wave - wave.mean()) / torch.sqrt(wave.var(unbiased=False) + 1e-7) if normalise else wave
    return {"input_values": wave[None]}


def through(model: Any, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """What goes into the first block and what comes out of each, as hooks on transformers' blocks see it."""
    seen: list[torch.Tensor] = []
    model = model.get_encoder() if model.config.is_encoder_decoder else model
    blocks = getattr(model, "layers", None) or getattr(model.encoder, "layers", None) or model.encoder.encoder.layer  # SEW-D
    hooks = [blocks[0].register_forward_pre_hook(lambda block, given: seen.append(given[0][0].clone()))]
    hooks += [block.register_forward_hook(lambda block, given, out: seen.append(only(out)[0].clone())) for block in blocks]
    model(**inputs)
    for hook in hooks:
        hook.remove()
    return seen


def only(out: Any) -> torch.Tensor:
    return out[0] if isinstance(out, tuple) else out


@pytest.mark.parametrize(("kind", "normalise"), [*((kind, False) for kind in tiny.MODELS), ("wav2vec2-stable", True)])
def test_hidden_states_are_those_of_transformers_for_a_clip_alone(kind: str, normalise: bool, tmp_path: Path) -> None:
    model = tiny.checkpoint(tmp_path, kind, normalise=normalise)
    model = getattr(model, model.base_model_prefix, model)
    ours = upstream.load(f"hf:{tmp_path}")
    with torch.inference_mode():
        # Over one or two mel frames, what the extractor divides by is rounding noise.
        least = 5_000 if kind in {"wav2vec2-bert", "speech-to-text"} else ours.card.shortest
        clips = [wave for wave in waves() if len(wave) >= least]
        hidden = ours.encode(clips)
        for clip, wave in enumerate(clips):
            theirs = through(model, given(model, wave, normalise))
            assert len(theirs) == len(hidden.states) == ours.card.layers + 1
            for state, expected in zip(hidden.clip(clip), theirs, strict=True):
                assert len(state) == ours.frames(wave.numel())
                assert torch.linalg.norm(state - expected[: len(state)]) <= 1e-5 * torch.linalg.norm(expected[: len(state)])


@pytest.mark.parametrize("kind", ["wav2vec2-pretraining", "unispeech-pretraining", "conformer-pretraining"])
@torch.inference_mode()
def test_codes_are_the_entries_that_the_quantizer_of_transformers_takes(kind: str, tmp_path: Path) -> None:
    model = tiny.checkpoint(tmp_path, kind)
    ours = upstream.load(f"hf:{tmp_path}")
    assert [tap.name for tap in ours.card.taps][-1] == "codes"
    entries = model.quantizer.codevectors.view(2, 4, -1)  # codebooks, entries
    clips = waves()
    for wave, codes in zip(clips, ours.tap(clips, "codes")["codes"], strict=True):
        taken, _ = model.quantizer(getattr(model, model.base_model_prefix)(wave[None]).extract_features)
        assert torch.equal(torch.cat([entries[book, codes[:, book]] for book in range(2)], dim=1), taken[0])
    assert len(codes.unique()) > 1


@pytest.mark.parametrize("kind", ["wav2vec2", "wav2vec2-stable", "conformer-rotary", "sew"])
@torch.inference_mode()
def test_convolutions_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    model = tiny.checkpoint(tmp_path, kind)
    ours = upstream.load(f"hf:{tmp_path}")
    wave = waves()[-1]
    seen: list[torch.Tensor] = []
    for layer in model.feature_extractor.conv_layers:
        layer.register_forward_hook(lambda layer, given, out: seen.append(out[0].T))
    model(wave[None])
    names = [tap.name for tap in ours.card.taps]
    found = ours.tap([wave], *names)
    for name, expected in zip(names, seen, strict=True):
        assert torch.linalg.norm(found[name][0] - expected) <= 1e-5 * torch.linalg.norm(expected)


@pytest.mark.parametrize(
    "kind", ["hubert", "wavlm-stable", "conformer-relative", "conformer-rotary", "wav2vec2-bert", "sew"]
)
def test_attention_maps_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    model = tiny.checkpoint(tmp_path, kind)
    model.set_attn_implementation("eager")
    ours = upstream.load(f"hf:{tmp_path}")
    wave = waves()[-1]
    with torch.inference_mode():
        maps = ours.encode([wave], attention=True).attention
        theirs = model(**given(model, wave, False), output_attentions=True).attentions
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
    assert "Its type is 'bert', which takes input_ids and no sound" in refused(tmp_path)
    config.write_text('{"model_type": "stethoscope"}')
    assert "Its type is 'stethoscope', of which transformers has no encoder" in refused(tmp_path)
    config.write_text("{}")
    assert "names no model_type" in refused(tmp_path)
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
    with pytest.raises(Unavailable, match="hubert-base-ls960 is not on this machine, and the network is"):
        upstream.load(card.name)
    with pytest.raises(Unavailable, match="somebody/else is not on this machine"):
        upstream.find("hf:somebody/else")
    with pytest.raises(Refused, match="neither a folder here nor a name"):
        upstream.find("hf:nonsense")


def test_a_common_checkpoint_that_is_here_is_what_its_own_configuration_says(workspace: Path) -> None:
    name = "hf:facebook/hubert-base-ls960"
    before = upstream.find(name)
    home = settings().downloads / "huggingface" / "models--facebook--hubert-base-ls960"
    tiny.checkpoint(home / "snapshots" / "0123", "hubert")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("0123")
    listed = next(card for card in upstream.cards() if card.name == name)
    for card in (upstream.find(name), listed):
        assert (card.layers, card.dims, card.here, card.revision) == (2, (16, 16, 16), True, "0123")
        assert (card.paper, card.data, card.family) == (before.paper, before.data, "HuBERT")
    with torch.inference_mode():
        assert len(upstream.load(name).encode([waves()[-1]]).states) == 3
    (home / "snapshots" / "0123" / "config.json").write_text("{")
    card = upstream.find(name)  # what is damaged does not hide; opening it says what is wrong
    assert card.layers == before.layers
    with pytest.raises(Refused, match="not readable JSON"):
        card.open(card)


def test_a_checkpoint_of_ones_own_tells_its_family_and_its_numbers(tmp_path: Path) -> None:
    for kind, family in (("wav2vec2", "wav2vec 2.0"), ("wavlm", "WavLM"), ("sew-d", "SEW-D"), ("moonshine", "moonshine")):
        tiny.checkpoint(tmp_path / kind, kind)
        card = upstream.find(f"hf:{tmp_path / kind}")
        assert card.family == family
        assert card.parameters == sum(number.numel() for number in upstream.load(card.name).parameters())


def test_cards_are_known_without_the_heavy_packages() -> None:
    script = (
        "import sys; from engine import upstream; cards = list(upstream.cards()); assert len(cards) > 50, len(cards);"
        "print([name for name in ('transformers', 'torchaudio', 'huggingface_hub', 'safetensors') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=HOUSE, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
