"""Blocks that keep nothing of what they computed and do it again on the way back: slower, with much less memory."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint


def through(run: Callable[..., Any], *inputs: Any, recompute: bool) -> Any:
    """What `run` makes of these; where asked for, nothing in between stays in memory until the gradient needs it."""
    if not recompute or not torch.is_grad_enabled():
        return run(*inputs)
    return checkpoint(run, *inputs, use_reentrant=False)
