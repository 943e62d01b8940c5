"""Tensors that are costly to make, by number: those used last stay in memory."""

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor

KEPT_BYTES = 2**30


class Recent:
    """Calls `make` for a number that it does not hold; holds as much as fits into its bytes, and always the last one."""

    def __init__(self, make: Callable[[int], tuple[Tensor, ...]], most: int = KEPT_BYTES) -> None:
        self._make, self._most = make, most
        self._kept: OrderedDict[int, tuple[Tensor, ...]] = OrderedDict()
        self._bytes = 0

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        made = self._kept[index] = self._make(index)
        self._bytes += _bytes(made)
        while self._bytes > self._most and len(self._kept) > 1:
            self._bytes -= _bytes(self._kept.popitem(last=False)[1])
        return made


def _bytes(tensors: tuple[Tensor, ...]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
