"""WavLM and UniSpeech-SAT as Microsoft saves them."""

from pathlib import Path
from typing import Any

from fairseq_weights import SMALL, Draw, encoder, front, save

from checkpoints import Maker

POSITIONS = {"relative_position_embedding": True, "gru_rel_pos": True, "num_buckets": 12, "max_distance": 9}
BASE = {**SMALL, **POSITIONS, "extractor_mode": "default", "normalize": False}
LARGE = {**SMALL, **POSITIONS, "extractor_mode": "layer_norm", "layer_norm_first": True, "normalize": True}
SAT = {**SMALL, "extractor_mode": "default", "normalize": False}


def _save(folder: Path, settings: dict[str, Any]) -> str:
    draw = Draw()
    front(draw, settings)
    encoder(draw, settings)
    draw.vector("mask_emb", settings["encoder_embed_dim"])
    return f"author:{save(folder, {'cfg': settings, 'model': draw.drawn})}"


def wavlm(folder: Path) -> str:
    return _save(folder, BASE)


def wavlm_large(folder: Path) -> str:
    return _save(folder, LARGE)


def unispeech_sat(folder: Path) -> str:
    return _save(folder, SAT)


MAKE: dict[str, Maker] = {"wavlm": wavlm, "wavlm large": wavlm_large}
