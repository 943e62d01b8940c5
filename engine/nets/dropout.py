"""Dropout whose draws are cheap on a processor, where they would cost as much as a layer's matrix products."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class Dropout(nn.Module):
    """Sets a share of the values to zero while learning, and scales the others up."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        return dropped(x, self.share if self.training else 0.0)


def dropped(x: Tensor, share: float) -> Tensor:
    """The same with a share of the values set to zero, and the others scaled up."""
    if not share:
        return x
    if x.device.type != "cpu":
        return functional.dropout(x, share)
    return (x * kept(x.shape, share)).mul_(1 / (1 - share))


def attended(query: Tensor, key: Tensor, value: Tensor, share: float, bias: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention that drops a share of its weights; torch's own would draw them slowly on a processor."""
    if not share or query.device.type != "cpu":
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=share)
    scores = query / query.shape[-1] ** 0.5 @ key.mT
    weights = (scores if bias is None else scores + bias).softmax(-1)
    return dropped(weights, share) @ value


def kept(shape: torch.Size, share: float) -> Tensor:
    """1 where a value stays and 0 where it is dropped, as bytes: four draws of 16 bits from each of 64.

    As bytes, because a product with them is vectorised, where one with true and false, or filling, is not.
    """
    count = math.prod(shape)
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    return (bits.view(torch.int16)[:count] >= round(share * 2**16) - 2**15).view(torch.uint8).view(shape)
