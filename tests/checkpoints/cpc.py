"""Tiny modified CPC in the layout of CPC_audio."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from checkpoints import Maker

CHANNELS, WIDTH = 8, 6
KERNELS = (10, 8, 4, 4, 4)
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def weights(cell: str, levels: int, norm: str) -> dict[str, Tensor]:
    """Drawn from a seed with simple operations, so that another program makes the same."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, scale: float = 0.3) -> Tensor:
        return scale * torch.randn(shape, generator=generator)

    state: dict[str, Tensor] = {}
    for number, kernel in enumerate(KERNELS):
        state[f"gEncoder.conv{number}.weight"] = draw(CHANNELS, CHANNELS if number else 1, kernel)
        state[f"gEncoder.conv{number}.bias"] = draw(CHANNELS)
        if norm != "ID":
            shape = (1, CHANNELS, 1) if norm == "layerNorm" else (CHANNELS,)
            state[f"gEncoder.batchNorm{number}.weight"] = 1 + draw(*shape)
            state[f"gEncoder.batchNorm{number}.bias"] = draw(*shape)
        if norm == "batchNorm":
            state[f"gEncoder.batchNorm{number}.running_mean"] = draw(CHANNELS)
            state[f"gEncoder.batchNorm{number}.running_var"] = 1 + draw(CHANNELS).square()
            state[f"gEncoder.batchNorm{number}.num_batches_tracked"] = torch.tensor(7)
    for level in range(levels):
        rows = GATES[cell] * WIDTH
        state[f"gAR.baseNet.weight_ih_l{level}"] = draw(rows, WIDTH if level else CHANNELS)
        state[f"gAR.baseNet.weight_hh_l{level}"] = draw(rows, WIDTH)
        state[f"gAR.baseNet.bias_ih_l{level}"] = draw(rows)
        state[f"gAR.baseNet.bias_hh_l{level}"] = draw(rows)
    return state


def settings(cell: str, levels: int, norm: str, mode: str | None) -> dict[str, Any]:
    """As CPC_audio calls them."""
    return {
        "hiddenEncoder": CHANNELS,
        "hiddenGar": WIDTH,
        "nLevelsGRU": levels,
        "arMode": cell,
        "normMode": norm,
        "cpc_mode": mode,
        "encoder_type": "cpc",
        "samplingType": "samespeaker",
    }


def _maker(cell: str, levels: int, norm: str, mode: str | None = None, plain: bool = True) -> Maker:
    def make(folder: Path) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        config = settings(cell, levels, norm, mode)
        torch.save(
            {"config": config if plain else Namespace(**config), "weights": weights(cell, levels, norm)},
            folder / "cpc.pt",
        )
        return f"author:{folder / 'cpc.pt'}"

    return make


MAKE = {
    "lstm": _maker("LSTM", 1, "layerNorm"),
    "gru": _maker("GRU", 2, "ID", plain=False),
    "rnn": _maker("RNN", 2, "batchNorm", "reverse"),
}
