"""From the configuration of a checkpoint to what its card says."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from engine.errors import Refused

# What the names of those parts begin with that come after the last state.
CODING = ("quantizer.", "codebooks.", "downsample.", "semantic.", "acoustic.")


@contextmanager
def describing(where: str) -> Iterator[None]:
    """Turns what goes wrong while a configuration is read, or a network is built from it, into a sentence."""
    try:
        yield
    except (ArithmeticError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise Refused(f"The configuration of '{where}' does not describe a usable model: {said}") from error


def parameters(network: nn.Module) -> int:
    """Numbers that a network has learnt, or would learn, to make its states; not those that only make codes."""
    return sum(number.numel() for name, number in network.named_parameters() if not name.startswith(CODING))
