"""Tiny PASE+ in the layout of santi-pdp/pase."""

from pathlib import Path

import torch
from torch import Tensor

from checkpoints import Maker

CHANNELS = (6, 5, 6, 7, 8, 7, 8, 9)
KERNELS = (20, 11, 11, 11, 11, 11, 11)  # of the second block and those that follow
RECURRENT, WIDTH = 10, 7


def weights(kernels: tuple[int, ...] = KERNELS) -> dict[str, Tensor]:
    """Drawn from a seed with simple operations, so that another program makes the same."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, scale: float = 0.3) -> Tensor:
        return scale * torch.randn(shape, generator=generator)

    state: dict[str, Tensor] = {}
    for block, channels in enumerate(CHANNELS):
        name = f"blocks.{block}"
        if block:
            state[f"{name}.conv.weight"] = draw(channels, CHANNELS[block - 1], kernels[block - 1], scale=0.2)
            state[f"{name}.conv.bias"] = draw(channels)
        else:  # a lower edge below 0 and a band that ends above half the rate are among them
            state[f"{name}.conv.low_hz_"] = torch.arange(channels)[:, None] * 1200.0 - 40 + draw(channels, 1, scale=9)
            state[f"{name}.conv.band_hz_"] = 700 + draw(channels, 1, scale=900)
            state[f"{name}.conv.band_hz_"][-1] = 4000
        state[f"{name}.norm.weight"] = 1 + draw(channels)
        state[f"{name}.norm.bias"] = draw(channels)
        state[f"{name}.norm.running_mean"] = draw(channels)
        state[f"{name}.norm.running_var"] = 1 + draw(channels).square()
        state[f"{name}.norm.num_batches_tracked"] = torch.tensor(7)
        state[f"{name}.act.weight"] = draw(channels)
        if block + 1 < len(CHANNELS):
            state[f"denseskips.{block}.weight"] = draw(WIDTH, channels, 1)
    state["rnn.layers.0.linear.weight"] = draw(3 * RECURRENT, 2 * CHANNELS[-1])
    state["rnn.layers.0.linear.bias"] = draw(3 * RECURRENT)
    state["W.weight"] = draw(WIDTH, RECURRENT, 1, scale=1.0)
    state["W.bias"] = draw(WIDTH)
    state["norm_out.running_mean"] = draw(WIDTH)
    state["norm_out.running_var"] = 1 + draw(WIDTH).square()
    state["norm_out.num_batches_tracked"] = torch.tensor(7)
    return state


def _plain(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(weights(), folder / "pase.ckpt")
    return f"author:{folder / 'pase.ckpt'}"


def _trained(folder: Path) -> str:
    """As training leaves it, with other kernels: an odd one that is as long as its stride, and an even one of stride 1."""
    folder.mkdir(parents=True, exist_ok=True)
    state = weights((11, 5, 4, 3, 11, 2, 7))
    torch.save(
        {"step": 12, "state_dict": state, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}, folder / "pase.ckpt"
    )
    return f"author:{folder / 'pase.ckpt'}"


MAKE: dict[str, Maker] = {"plus": _plain, "trained": _trained}
