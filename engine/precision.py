"""Number formats of matrix products: which there are, and where each can be used."""

import contextlib
from typing import Any, Literal

import torch

from engine.errors import Refused

Precision = Literal["float32", "bfloat16", "float16"]


def check(precision: Precision, device: torch.device) -> str:
    """Refuse what the device cannot do; a sentence where it can, but slower than with float32."""
    if precision == "float16" and device.type == "cpu":
        raise Refused("float16 needs a GPU. Choose float32 or bfloat16.")
    if precision == "bfloat16" and device.type == "cpu" and not _knows_bfloat16():
        return "This processor has no products of bfloat16: float32 would be faster here, and exact."
    return ""


def _knows_bfloat16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def autocast(precision: Precision, device: torch.device) -> "contextlib.AbstractContextManager[Any]":
    """Where products have this format; what needs every bit keeps float32 by itself."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))
