"""From the configuration of a checkpoint to what its card says."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from engine.errors import Refused


@contextmanager
def describing(where: str) -> Iterator[None]:
    """Turns what goes wrong while a configuration is read, or a network is built from it, into a sentence."""
    try:
        yield
    except (ArithmeticError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise Refused(f"The configuration of '{where}' does not describe a usable model: {said}") from error


def count(*parts: nn.Module | nn.Parameter) -> int:
    """Numbers that these parts of a network have learnt or would learn."""
    return sum(
        part.numel() if isinstance(part, nn.Parameter) else sum(each.numel() for each in part.parameters()) for part in parts
    )
