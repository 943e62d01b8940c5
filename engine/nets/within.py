"""Smaller networks within a larger one: the first channels, heads, inner units and blocks of it (Wang et al. 2022)."""

from torch import Tensor, nn

JOINED = {".qkv.": 3}  # weights that are several side by side, each of which is cut by itself


def cut(whole: nn.Module, part: nn.Module) -> dict[str, Tensor]:
    """The weights of a part that is built as the whole is, only smaller. What is learnt from them the whole learns."""
    held = dict(whole.named_parameters())
    return {name: _first(held[name], weight.shape, _joined(name)) for name, weight in part.named_parameters()}


def _joined(name: str) -> int:
    return next((count for word, count in JOINED.items() if word in name), 1)


def _first(weight: Tensor, sizes: tuple[int, ...], joined: int) -> Tensor:
    rows = weight.view(joined, -1, *weight.shape[1:])[:, : sizes[0] // joined].flatten(0, 1)
    first: Tensor = rows[tuple(slice(size) for size in sizes)]
    return first
