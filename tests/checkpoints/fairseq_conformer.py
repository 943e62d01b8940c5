"""wav2vec 2.0 with Conformer blocks in fairseq's layout, with either kind of positions."""

from pathlib import Path
from typing import Any

import torch
from fairseq_weights import SMALL, Draw, encoder, front, save

from checkpoints import Maker

SETTINGS: dict[str, Any] = {
    **SMALL,
    "extractor_mode": "layer_norm",
    "layer_norm_first": True,
    "layer_type": "conformer",
    "attn_type": "espnet",
    "depthwise_conv_kernel_size": 5,
    "conv_bias": True,
    "fp16": False,
    "max_positions": 100,
}


def _block(draw: Draw, stem: str, settings: dict[str, Any]) -> None:
    dim, heads, inner = (settings[f"encoder_{name}"] for name in ("embed_dim", "attention_heads", "ffn_embed_dim"))
    for number in (1, 2):
        draw.norm(f"{stem}.ffn{number}.layer_norm", dim)
        draw.linear(f"{stem}.ffn{number}.w_1", dim, inner)
        draw.linear(f"{stem}.ffn{number}.w_2", inner, dim)
    draw.norm(f"{stem}.self_attn_layer_norm", dim)
    for part in "qkv":
        draw.linear(f"{stem}.self_attn.linear_{part}", dim, dim)
    draw.linear(f"{stem}.self_attn.linear_out", dim, dim)
    if settings["pos_enc_type"] == "rel_pos":
        draw.matrix(f"{stem}.self_attn.linear_pos.weight", dim, dim)
        for bias in "uv":
            draw.vector(f"{stem}.self_attn.pos_bias_{bias}", heads, dim // heads)
    else:  # a table that follows from the sizes
        width = dim // heads
        draw.drawn[f"{stem}.self_attn.rotary_emb.inv_freq"] = 10_000.0 ** (-torch.arange(0, width, 2) / width)
    draw.norm(f"{stem}.conv_module.layer_norm", dim)
    draw.matrix(f"{stem}.conv_module.pointwise_conv1.weight", 2 * dim, dim, 1)
    draw.matrix(f"{stem}.conv_module.depthwise_conv.weight", dim, 1, settings["depthwise_conv_kernel_size"])
    draw.norm(f"{stem}.conv_module.batch_norm", dim)
    draw.vector(f"{stem}.conv_module.batch_norm.running_mean", dim)
    draw.vector(f"{stem}.conv_module.batch_norm.running_var", dim, around=1.0)
    draw.drawn[f"{stem}.conv_module.batch_norm.num_batches_tracked"] = torch.tensor(3)
    draw.matrix(f"{stem}.conv_module.pointwise_conv2.weight", dim, dim, 1)
    draw.norm(f"{stem}.final_layer_norm", dim)


def content(**settings: Any) -> dict[str, Any]:
    settings = {**SETTINGS, **settings}
    draw = Draw()
    front(draw, settings)
    encoder(draw, {**settings, "encoder_layers": 0})  # the projection, and positions that lie there unused
    for number in range(settings["encoder_layers"]):
        _block(draw, f"encoder.layers.{number}", settings)
    draw.vector("mask_emb", settings["encoder_embed_dim"])
    draw.linear("project_q", 8, settings["final_dim"])
    draw.linear("final_proj", settings["encoder_embed_dim"], settings["final_dim"])
    cfg = {"model": {"_name": "wav2vec2", **settings}, "task": {"_name": "audio_pretraining", "normalize": True}}
    return {"cfg": cfg, "model": draw.drawn}


def relative(folder: Path) -> str:
    return f"author:{save(folder, content(pos_enc_type='rel_pos'))}"


def rotary(folder: Path) -> str:
    return f"author:{save(folder, content(pos_enc_type='rope'))}"


MAKE: dict[str, Maker] = {"relative": relative}
