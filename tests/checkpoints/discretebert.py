"""Tiny BERT over the codes of a tiny vq-wav2vec: in the layout of fairseq with its dictionary, and as S3PRL converts it."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from checkpoints import Maker, wav2vec

DIM, INNER, HEADS, LAYERS, PLACES = 12, 20, 3, 2, 42  # 38 frames are heard at once

# Some pairs have no word. What comes last pads the dictionary, as fairseq does.
PAIRS = [f"{first}-{second}" for second in range(5) for first in range(5) if (first + second) % 4]
DICTIONARY = "".join(f"{word} {100 - place}\n" for place, word in enumerate([*PAIRS, "madeupword0000"]))
WORDS = 4 + len(PAIRS) + 1 + 1

SETTINGS: dict[str, Any] = {
    "arch": "roberta_base",
    "encoder_layers": LAYERS,
    "encoder_embed_dim": DIM,
    "encoder_ffn_embed_dim": INNER,
    "encoder_attention_heads": HEADS,
    "max_positions": PLACES - 2,
    "activation_fn": "gelu",
}


def weights() -> dict[str, Tensor]:
    """Drawn from a seed with simple operations, so that another program makes the same."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, scale: float = 0.3) -> Tensor:
        return scale * torch.randn(shape, generator=generator)

    words = draw(WORDS, DIM, scale=1.0)
    state = {"embed_tokens.weight": words, "embed_positions.weight": draw(PLACES, DIM, scale=1.0)}
    state["layernorm_embedding.weight"], state["layernorm_embedding.bias"] = 1 + draw(DIM), draw(DIM)
    for number in range(LAYERS):
        layer = f"layers.{number}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            state[f"{layer}.self_attn.{part}.weight"] = draw(DIM, DIM)
            state[f"{layer}.self_attn.{part}.bias"] = draw(DIM)
        state[f"{layer}.fc1.weight"], state[f"{layer}.fc1.bias"] = draw(INNER, DIM), draw(INNER)
        state[f"{layer}.fc2.weight"], state[f"{layer}.fc2.bias"] = draw(DIM, INNER), draw(DIM)
        for norm in ("self_attn_layer_norm", "final_layer_norm"):
            state[f"{layer}.{norm}.weight"], state[f"{layer}.{norm}.bias"] = 1 + draw(DIM), draw(DIM)
    state = {f"encoder.sentence_encoder.{name}": tensor for name, tensor in state.items()}
    state["encoder.sentence_encoder.version"] = torch.tensor([3.0])
    head = {"weight": words, "bias": draw(WORDS), "dense.weight": draw(DIM, DIM), "dense.bias": draw(DIM)}
    head |= {"layer_norm.weight": 1 + draw(DIM), "layer_norm.bias": draw(DIM)}
    return state | {f"encoder.lm_head.{name}": tensor for name, tensor in head.items()}


def older(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As the first versions of fairseq named them."""
    old: dict[str, Tensor] = {}
    for name, tensor in state.items():
        old["decoder." + name.removeprefix("encoder.").replace("layernorm_embedding", "emb_layer_norm")] = tensor
    for kind in ("weight", "bias"):
        for number in range(LAYERS):
            attention = f"decoder.sentence_encoder.layers.{number}.self_attn"
            old[f"{attention}.in_proj_{kind}"] = torch.cat([old.pop(f"{attention}.{part}_proj.{kind}") for part in "qkv"])
    return old


def save(folder: Path, layout: str, kind: str = "kmeans") -> str:
    """Write the files of one of the layouts and name the upstream."""
    wav2vec.save(folder, wav2vec.SETTINGS[kind], "fairseq")
    (folder / "wav2vec.pt").rename(folder / "vq-wav2vec_kmeans.pt")
    held: dict[str, Any] = {"args": Namespace(**SETTINGS), "model": weights()}
    if layout == "older fairseq":
        held["model"] = older(held["model"])
    if layout == "s3prl":
        held = {
            "task_cfg": {"data": "", "seed": 1},
            "model_cfg": Namespace(**SETTINGS),
            "model_weight": weights(),
            "text_dictionary": DICTIONARY,
        }
    else:
        (folder / "dict.txt").write_text(DICTIONARY)
    torch.save(held, folder / "bert.pt")
    return f"{'s3prl' if layout == 's3prl' else 'author'}:{folder / 'bert.pt'}"


def _maker(layout: str) -> Maker:
    return lambda folder: save(folder, layout)


MAKE = {"fairseq": _maker("fairseq"), "s3prl": _maker("s3prl")}
