"""Numbers that another program made of a tiny checkpoint and a sound that both can make: recorded once, compared here.

A file of numbers holds, for each kind of checkpoint and each state, its shape, mean, deviation and a few values.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

PLACES = 8


def sound(samples: int = 8_000) -> Tensor:
    """The same noise for everyone, with some offset."""
    return 0.2 * torch.randn(samples, generator=torch.Generator().manual_seed(1)) + 0.03


def digest(states: list[Tensor]) -> list[dict[str, Any]]:
    """What is recorded of the states (frames, dim) of one clip."""
    recorded = []
    for state in states:
        flat = state.detach().double().flatten()
        places = torch.linspace(0, flat.numel() - 1, PLACES).long()
        recorded.append(
            {
                "shape": list(state.shape),
                "mean": flat.mean().item(),
                "deviation": flat.std().item(),
                "values": flat[places].tolist(),
            }
        )
    return recorded


def check(states: list[Tensor], file: Path, kind: str, tolerance: float = 1e-5) -> None:
    """Every state is the recorded one: to so much of the largest of the numbers that are kept of it."""
    expected = json.loads(file.read_text("utf-8"))["numbers"][kind]
    assert [list(state.shape) for state in states] == [state["shape"] for state in expected]
    for found, wanted in zip(digest(states), expected, strict=True):
        ours = torch.tensor([found["mean"], found["deviation"], *found["values"]])
        theirs = torch.tensor([wanted["mean"], wanted["deviation"], *wanted["values"]])
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * float(theirs.abs().max()))
