"""WavLM and UniSpeech-SAT as Microsoft saves them."""

from pathlib import Path
from typing import Any

from fairseq_weights import SMALL, Draw, encoder, front, save

from checkpoints import Maker

POSITIONS = {"relative_position_embedding": True, "gru_rel_pos": True, "num_buckets": 12, "max_distance": 9}
BASE = {**SMALL, **POSITIONS, "extractor_mode": "default", "normalize": False}
LARGE = {**SMALL, **POSITIONS, "extractor_mode": "layer_norm", "layer_norm_first": True, "normalize": True}
SAT = {**SMALL, "extractor_mode": "default", "normalize": False}


def content(settings: dict[str, Any]) -> dict[str, Any]:
    draw = Draw()
    front(draw, settings)
    encoder(draw, settings)
    draw.vector("mask_emb", settings["encoder_embed_dim"])
    return {"cfg": settings, "model": draw.drawn}


def wavlm(folder: Path) -> str:
    return f"author:{save(folder, content(BASE))}"


def wavlm_large(folder: Path) -> str:
    return f"author:{save(folder, content(LARGE))}"


def unispeech_sat(folder: Path) -> str:
    return f"author:{save(folder, content(SAT))}"


MAKE: dict[str, Maker] = {"wavlm": wavlm, "wavlm large": wavlm_large}
