"""Tiny MAE-AST as fairseq saves it: settings under `cfg`, weights under `model`."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from checkpoints import Maker

DIM, INNER, HEADS, MELS, LAYERS = 16, 24, 2, 32, 2


def weights(kernel: tuple[int, int]) -> dict[str, Tensor]:
    """Drawn from a seed with simple operations, so that another program makes the same."""
    generator = torch.Generator().manual_seed(0)
    size = kernel[0] * kernel[1]

    def draw(*shape: int, scale: float = 0.3) -> Tensor:
        return scale * torch.randn(shape, generator=generator)

    state: dict[str, Tensor] = {
        "encoder_mask_emb": draw(DIM),
        "decoder_mask_emb": draw(DIM),
        "layer_norm.weight": 1 + draw(MELS),
        "layer_norm.bias": draw(MELS),
        "batch_norm.running_mean": torch.tensor([-4.0]),
        "batch_norm.running_var": torch.tensor([15.0]),
        "batch_norm.num_batches_tracked": torch.tensor(7),
        "post_extract_proj.weight": draw(DIM, size, scale=0.1),
        "post_extract_proj.bias": draw(DIM),
        "enc_sine_pos_embed.pe": _table(400),
        "dec_sine_pos_embed.pe": _table(400),
        "final_proj_reconstruction.weight": draw(size, DIM),
        "final_proj_reconstruction.bias": draw(size),
        "final_proj_classification.weight": draw(size, DIM),
        "final_proj_classification.bias": draw(size),
    }
    for part, layers in (("encoder", LAYERS), ("decoder", 1)):
        for layer in range(layers):
            block = f"{part}.layers.{layer}"
            for letter in ("q", "k", "v", "out"):
                state[f"{block}.self_attn.{letter}_proj.weight"] = draw(DIM, DIM)
                state[f"{block}.self_attn.{letter}_proj.bias"] = draw(DIM)
            state |= {f"{block}.fc1.weight": draw(INNER, DIM), f"{block}.fc1.bias": draw(INNER)}
            state |= {f"{block}.fc2.weight": draw(DIM, INNER), f"{block}.fc2.bias": draw(DIM)}
            for norm in ("self_attn_layer_norm", "final_layer_norm"):
                state |= {f"{block}.{norm}.weight": 1 + draw(DIM), f"{block}.{norm}.bias": draw(DIM)}
        state |= {f"{part}.layer_norm.weight": 1 + draw(DIM), f"{part}.layer_norm.bias": draw(DIM)}
    return state


def _table(rows: int) -> Tensor:
    """The buffer of sinusoids that such files hold; nobody reads it."""
    return torch.zeros(1, rows, DIM)


def settings(kernel: tuple[int, int], norm_first: bool) -> dict[str, Any]:
    """As fairseq's configuration calls them."""
    model = {
        "_name": "mae_ast",
        "ast_kernel_size_time": kernel[0],
        "ast_kernel_size_chan": kernel[1],
        "ast_kernel_stride_time": kernel[0],
        "ast_kernel_stride_chan": kernel[1],
        "encoder_layers": LAYERS,
        "encoder_embed_dim": DIM,
        "encoder_ffn_embed_dim": INNER,
        "encoder_attention_heads": HEADS,
        "activation_fn": "gelu",
        "layer_norm_first": norm_first,
        "feature_grad_mult": 0.1,
        "use_post_enc_proj": False,
        "decoder_embed_dim": DIM,
        "decoder_layers": 1,
        "decoder_layerdrop": 0.0,
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "activation_dropout": 0.0,
        "encoder_layerdrop": 0.05,
        "dropout_input": 0.1,
        "random_mask_prob": 0.75,
        "mask_length": 10,
        "mask_selection": "static",
        "mask_other": 0,
        "no_mask_overlap": False,
        "mask_min_space": 0,
        "checkpoint_activations": False,
        "max_token_length": 400,
        "enc_sine_pos": True,
        "enc_conv_pos": False,
        "dec_sine_pos": True,
        "dec_conv_pos": False,
    }
    task = {
        "_name": "mae_ast_pretraining",
        "sample_rate": 16_000,
        "feature_type": "fbank",
        "feature_rate": 100,
        "feature_dim": MELS,
        "mask_type": "random_mask",
    }
    return {"model": model, "task": task}


def _maker(kernel: tuple[int, int], norm_first: bool = False) -> Maker:
    def make(folder: Path) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save({"cfg": settings(kernel, norm_first), "model": weights(kernel)}, folder / "mae_ast.pt")
        return f"author:{folder / 'mae_ast.pt'}"

    return make


MAKE = {"frame": _maker((2, MELS)), "patch": _maker((4, 8)), "patch pre-norm": _maker((4, 8), norm_first=True)}
