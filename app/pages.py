"""Finds the pages of Studio and of Board: every file of a folder is one, and its stem is its address.

A page is a module with `TITLE`, `ORDER` (its place; the first is what opens) and a function that draws it. A page that
cannot be imported says so in its own place and harms no other.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from engine.errors import explain


@dataclass(frozen=True)
class Page:
    """One page of Studio or Board."""

    id: str
    title: str
    order: int
    draw: Callable[[], Any]


def find(folder: ModuleType, verb: str, refuse: Callable[[str, str], object]) -> list[Page]:
    """The page of every file in a package, in their order; `verb` is what a page's function is called."""

    def take(stem: str) -> Page:
        try:
            module = importlib.import_module(f"{folder.__name__}.{stem}")
            return Page(stem, module.TITLE, module.ORDER, getattr(module, verb))
        except Exception as error:
            title = stem.capitalize()
            return Page(stem, title, 1000, partial(refuse, f"The page {title} could not be read", explain(error)))

    files = sorted(Path(folder.__path__[0]).glob("[!_]*.py"))
    return sorted((take(file.stem) for file in files), key=lambda page: (page.order, page.id))
