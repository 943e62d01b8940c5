"""LightHuBERT: the whole network of stage 1, and one of which a part is used."""

from pathlib import Path
from typing import Any

from fairseq_weights import SMALL, Draw, encoder, front, save

from checkpoints import Maker

# Its attention heads are 64 wide, and it has 12 blocks, whatever else it is.
SETTINGS: dict[str, Any] = {
    **SMALL,
    "encoder_embed_dim": 128,
    "encoder_layers": 12,
    "encoder_attention_heads": 2,
    "encoder_ffn_embed_dim": 512,
    "extractor_mode": "layer_norm",
    "teacher_embed_dim": 8,
    "layer_pred_num": "0,0,0,0,0,0,0,0,0,0,0,1",
}


PART = {**SETTINGS, "_name": "hubert_pruner", "pruner_supernet": "configs/small.yaml"}


def content(settings: dict[str, Any]) -> dict[str, Any]:
    draw = Draw()
    front(draw, settings)
    encoder(draw, settings)
    draw.vector("mask_emb", settings["encoder_embed_dim"])
    draw.matrix("layer_pred_heads.11.weight", 8, settings["encoder_embed_dim"])
    return {"cfg": {"model": settings, "task": {"normalize": False}}, "model": draw.drawn}


def _save(folder: Path, settings: dict[str, Any]) -> str:
    return f"author:{save(folder, content(settings))}"


def small_part(folder: Path) -> str:
    return _save(folder, PART)


def stage1(folder: Path) -> str:
    return _save(folder, {**SETTINGS, "_name": "student_hubert"})


def tiny(folder: Path) -> str:
    return _save(folder, {**SETTINGS, "_name": "student_hubert", "encoder_layers": 2, "encoder_embed_dim": 16})


MAKE: dict[str, Maker] = {"stage1": tiny}
