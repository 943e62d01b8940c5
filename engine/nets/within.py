"""Smaller networks within a larger one: the first channels, heads, inner units and blocks of it (Wang et al. 2022)."""

from torch import Tensor, nn


def cut(whole: nn.Module, part: nn.Module) -> dict[str, Tensor]:
    """The weights of a part that is built as the whole is, only smaller. What is learnt from them the whole learns."""
    held = dict(whole.named_parameters())
    return {name: _first(held[name], weight.shape, 3 if ".qkv." in name else 1) for name, weight in part.named_parameters()}


def _first(weight: Tensor, sizes: tuple[int, ...], joined: int) -> Tensor:
    """Of so many matrices that are one weight, one under another, the beginnings of each."""
    rows = weight.view(joined, -1, *weight.shape[1:])[:, : sizes[0] // joined].flatten(0, 1)
    first: Tensor = rows[tuple(slice(size) for size in sizes)]
    return first
