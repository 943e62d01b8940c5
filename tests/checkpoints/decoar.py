"""DeCoAR and DeCoAR 2.0."""

from pathlib import Path
from typing import Any

from fairseq_weights import SMALL, Draw, encoder, save

from checkpoints import Maker

WIDTH, LAYERS = 12, 3
DECOAR2: dict[str, Any] = {**SMALL, "encoder_embed_dim": 48, "encoder_attention_heads": 12, "encoder_ffn_embed_dim": 64}


def decoar_content() -> dict[str, Any]:
    draw = Draw()
    draw.linear("post_extract_proj", 80, WIDTH)
    for direction in ("forward", "backward"):
        for layer in range(LAYERS):
            for kind in ("ih", "hh"):
                draw.matrix(f"{direction}_lstm.weight_{kind}_l{layer}", 4 * WIDTH, WIDTH)
                draw.vector(f"{direction}_lstm.bias_{kind}_l{layer}", 4 * WIDTH)
    draw.linear("prediction.0", 2 * WIDTH, 80)  # of the training, and no part of its states
    return {"model": draw.drawn}


def decoar2_content() -> dict[str, Any]:
    draw = Draw()
    encoder(draw, DECOAR2, inputs=80)
    draw.matrix("quantizer.vars", 10, 48)
    return {"model": draw.drawn}


def decoar(folder: Path) -> str:
    return f"author:{save(folder, decoar_content())}"


def decoar2(folder: Path) -> str:
    return f"author:{save(folder, decoar2_content())}"


MAKE: dict[str, Maker] = {"decoar": decoar, "decoar2": decoar2}
