"""Tiny SSAST as its authors save it: the state of a network in parallel dress, and nothing else."""

from pathlib import Path

import torch
from torch import Tensor

from checkpoints import Maker

DIM, INNER, LAYERS, MELS, LENGTH = 64, 48, 2, 128, 128


def weights(kernel: tuple[int, int]) -> dict[str, Tensor]:
    """Drawn from a seed with simple operations, so that another program makes the same."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, scale: float = 0.15) -> Tensor:
        return scale * torch.randn(shape, generator=generator)

    patches = (MELS // kernel[0]) * (LENGTH // kernel[1])
    state: dict[str, Tensor] = {
        "v.cls_token": draw(1, 1, DIM),
        "v.dist_token": draw(1, 1, DIM),
        "v.pos_embed": draw(1, 2 + patches, DIM, scale=0.5),
        "v.patch_embed.proj.weight": draw(DIM, 1, *kernel, scale=0.1),
        "v.patch_embed.proj.bias": draw(DIM),
        "v.norm.weight": 1 + draw(DIM),
        "v.norm.bias": draw(DIM),
        "mask_embed": draw(1, 1, DIM),
        "p_input_fdim": torch.tensor(MELS),
        "p_input_tdim": torch.tensor(LENGTH),
    }
    for layer in range(LAYERS):
        block = f"v.blocks.{layer}"
        state |= {f"{block}.attn.qkv.weight": draw(3 * DIM, DIM), f"{block}.attn.qkv.bias": draw(3 * DIM)}
        state |= {f"{block}.attn.proj.weight": draw(DIM, DIM), f"{block}.attn.proj.bias": draw(DIM)}
        state |= {f"{block}.mlp.fc1.weight": draw(INNER, DIM), f"{block}.mlp.fc1.bias": draw(INNER)}
        state |= {f"{block}.mlp.fc2.weight": draw(DIM, INNER), f"{block}.mlp.fc2.bias": draw(DIM)}
        for norm in ("norm1", "norm2"):
            state |= {f"{block}.{norm}.weight": 1 + draw(DIM), f"{block}.{norm}.bias": draw(DIM)}
    for head in ("v.head", "v.head_dist"):
        state |= {f"{head}.weight": draw(3, DIM), f"{head}.bias": draw(3)}
    for layer in ("cpredlayer", "gpredlayer"):
        state |= {f"{layer}.0.weight": draw(DIM, DIM), f"{layer}.0.bias": draw(DIM)}
        state |= {f"{layer}.2.weight": draw(256, DIM), f"{layer}.2.bias": draw(256)}
    return {f"module.{name}": tensor for name, tensor in state.items()}


def _maker(kernel: tuple[int, int]) -> Maker:
    def make(folder: Path) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(weights(kernel), folder / "ssast.pth")
        return f"author:{folder / 'ssast.pth'}"

    return make


MAKE = {"frame": _maker((MELS, 2)), "patch": _maker((16, 16))}
