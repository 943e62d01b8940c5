"""How much of a change of the sound reaches a layer: the layer-wise noise to signal ratio."""

from typing import Literal

import torch
from torch import Tensor


def ratio(
    clean: Tensor, noisy: Tensor, *, norm: Literal["frobenius", "spectral"] = "frobenius", centred: bool = False
) -> float:
    """||noisy - clean|| / ||clean|| of one utterance's states (frames, dims).

    frobenius: the root of the sum of squares, over all frames and dimensions. spectral: the largest singular value, as
    S3PRL's observe_lnsr computes it. centred: the mean over frames is taken out of the clean states below the line, so
    that a large constant component does not make a layer look robust.
    """
    if clean.shape != noisy.shape or clean.dim() != 2:
        raise ValueError(
            f"Two versions of one clip's states are compared; these are {tuple(clean.shape)} and {tuple(noisy.shape)}."
        )
    clean, noisy = clean.double(), noisy.double()
    order = "fro" if norm == "frobenius" else 2
    below = clean - clean.mean(0) if centred else clean
    return float(torch.linalg.matrix_norm(noisy - clean, order) / torch.linalg.matrix_norm(below, order))
