"""Tiny checkpoints with random weights, a file for each family. A maker writes one into a folder and names the upstream.

Every one is swept by tests/contracts/test_upstreams.py.
"""

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

Maker = Callable[[Path], str]


def makers() -> dict[str, Maker]:
    """Every maker of this folder."""
    found: dict[str, Maker] = {}
    for module in pkgutil.iter_modules(__path__):
        made: dict[str, Maker] = importlib.import_module(f"{__name__}.{module.name}").MAKE
        found |= {f"{module.name} {kind}": maker for kind, maker in made.items()}
    return found
