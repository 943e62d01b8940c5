"""wav2vec 2.0, HuBERT and data2vec in fairseq's layouts, old and new."""

from pathlib import Path
from typing import Any

import torch
from fairseq_weights import SMALL, Draw, encoder, front, namespace, save

from checkpoints import Maker

NORMED = {"extractor_mode": "layer_norm", "conv_bias": True, "layer_norm_first": True}


def wav2vec2_weights(settings: dict[str, Any]) -> dict[str, Any]:
    draw = Draw()
    front(draw, settings)
    encoder(draw, settings)
    draw.vector("mask_emb", 16)
    draw.vector("quantizer.vars", 1, 2 * 5, 4)
    draw.linear("quantizer.weight_proj", 8, 2 * 5)
    draw.linear("project_q", 8, 8)
    draw.linear("final_proj", 16, 8)
    return draw.drawn


def hubert_weights(settings: dict[str, Any]) -> dict[str, Any]:
    draw = Draw()
    front(draw, settings)
    encoder(draw, settings)
    draw.vector("mask_emb", 16)
    draw.linear("final_proj", 16, 8)
    draw.vector("label_embs_concat", 6, 8)
    return draw.drawn


def data2vec_weights(settings: dict[str, Any]) -> dict[str, Any]:
    draw = Draw()
    front(draw, settings)
    encoder(draw, settings)
    draw.vector("mask_emb", 16)
    weights: dict[str, Any] = dict(draw.drawn)
    weights["_ema"] = {name: 2 * weights[f"encoder.{name}"] for name in ("layers.0.fc1.weight", "layers.1.fc1.weight")}
    return weights


WAV2VEC2 = {**SMALL, "quantize_targets": True, "latent_vars": 5, "latent_groups": 2, "extractor_mode": "default"}
HUBERT = {**SMALL, "label_rate": 50.0, "extractor_mode": "default"}
HUBERT_NORMED = {**SMALL, **NORMED, "label_rate": 50.0}
DATA2VEC = {**SMALL, "extractor_mode": "layer_norm", "conv_pos": 15, "pos_conv_depth": 3}


def wav2vec2_content() -> dict[str, Any]:
    """The old layout: settings of the model and of the task in one Namespace."""
    args = namespace(arch="wav2vec2", task="audio_pretraining", normalize=False, **WAV2VEC2)
    return {"args": args, "model": wav2vec2_weights(WAV2VEC2)}


def hubert_content(settings: dict[str, Any], normalize: bool) -> dict[str, Any]:
    task = {"_name": "hubert_pretraining", "normalize": normalize}
    return {"cfg": {"model": {"_name": "hubert", **settings}, "task": task}, "model": hubert_weights(settings), "args": None}


def data2vec_content() -> dict[str, Any]:
    cfg = {"model": {"_name": "data2vec_audio", **DATA2VEC}, "task": {"_name": "audio_pretraining", "normalize": True}}
    return {"cfg": cfg, "model": data2vec_weights(DATA2VEC)}


def fine_tuned_content() -> dict[str, Any]:
    """A transcriber: the network lies one level deeper, and its settings beside those of the fine-tuning."""
    weights = {f"w2v_encoder.w2v_model.{name}": tensor for name, tensor in wav2vec2_weights(WAV2VEC2).items()}
    kept = {name: tensor for name, tensor in weights.items() if not any(gone in name for gone in ("quant", "project_q"))}
    kept["w2v_encoder.proj.weight"], kept["w2v_encoder.proj.bias"] = torch.ones(3, 16), torch.zeros(3)
    before = {"model": {"_name": "wav2vec2", **WAV2VEC2}, "task": {"_name": "audio_pretraining", "normalize": False}}
    model = {"_name": "wav2vec_ctc", "w2v_args": before, "layerdrop": 0.1, "conv_feature_layers": "nothing"}
    return {"cfg": {"model": model, "task": {"_name": "audio_finetuning", "normalize": False}}, "model": kept}


def converted_content() -> dict[str, Any]:
    """What S3PRL makes of a checkpoint of fairseq."""
    return {
        "task_cfg": {"_name": "hubert_pretraining", "normalize": True},
        "model_cfg": {"_name": "hubert", **HUBERT_NORMED},
        "model_weight": hubert_weights(HUBERT_NORMED),
        "dictionaries_symbols": [["a", "b", "c", "d", "e", "f"]],
    }


def wav2vec2(folder: Path) -> str:
    return f"author:{save(folder, wav2vec2_content())}"


def hubert(folder: Path) -> str:
    return f"author:{save(folder, hubert_content(HUBERT, normalize=False))}"


def hubert_normed(folder: Path) -> str:
    return f"author:{save(folder, hubert_content(HUBERT_NORMED, normalize=True))}"


def data2vec(folder: Path) -> str:
    return f"author:{save(folder, data2vec_content())}"


def fine_tuned(folder: Path) -> str:
    return f"author:{save(folder, fine_tuned_content())}"


def converted(folder: Path) -> str:
    return f"s3prl:{save(folder, converted_content())}"


MAKE: dict[str, Maker] = {"wav2vec2": wav2vec2, "hubert normed": hubert_normed, "data2vec": data2vec}
