"""Tiny BYOL-A in the layout of nttcslab/byol-a. Its convolutions are as wide as those of the published ones."""

from pathlib import Path

import torch
from torch import Tensor

from checkpoints import Maker


def weights(width: int) -> dict[str, Tensor]:
    """Drawn from a seed with simple operations, so that another program makes the same."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, scale: float = 0.05) -> Tensor:
        return scale * torch.randn(shape, generator=generator)

    state: dict[str, Tensor] = {}
    for depth in range(3):
        convolution, norm = f"features.{4 * depth}", f"features.{4 * depth + 1}"
        state |= {f"{convolution}.weight": draw(64, 64 if depth else 1, 3, 3), f"{convolution}.bias": draw(64)}
        state |= {f"{norm}.weight": 1 + draw(64), f"{norm}.bias": draw(64)}
        state |= {f"{norm}.running_mean": draw(64), f"{norm}.running_var": 1 + draw(64).square()}
        state[f"{norm}.num_batches_tracked"] = torch.tensor(7)
    state |= {"fc.0.weight": draw(width, 512), "fc.0.bias": draw(width)}
    state |= {"fc.3.weight": draw(width, width, scale=0.3), "fc.3.bias": draw(width)}
    return state


def _maker(before: str) -> Maker:
    def make(folder: Path) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        state = {f"{before}{name}": tensor for name, tensor in weights(12).items()}
        torch.save({"state_dict": {**state, "projector.weight": torch.ones(2)}} if before else state, folder / "byol.pth")
        return f"author:{folder / 'byol.pth'}"

    return make


MAKE = {"plain": _maker(""), "trainer": _maker("online_encoder.net.")}
