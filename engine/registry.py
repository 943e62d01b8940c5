"""Finds extensions: drop a module into a package, or into workspace/extensions/<family>/, and it is known.

The file's stem is its name. A file that fails to import is remembered with its error and harms nothing else.
"""

import importlib
import importlib.util
import inspect
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar

from engine.errors import AuscultError, Unknown
from engine.settings import settings

T = TypeVar("T")


@dataclass(frozen=True)
class Broken:
    """An extension file that could not be imported."""

    file: Path
    error: str


class Registry(Generic[T]):
    """The extensions of one family, as instances of `kind` or as concrete subclasses of it."""

    def __init__(self, kind: type[T], package: str) -> None:
        self.kind = kind
        self.package = package
        self.family = package.rsplit(".", 1)[-1]
        self._found: dict[str, list[object]] = {}
        self._home: dict[str, Path] = {}  # name -> the file it comes from
        self._broken: dict[Path, Broken] = {}
        self._seen: dict[Path, float] = {}
        self._lock = threading.RLock()  # pages ask from many threads; an extension may itself ask while it is imported

    @property
    def broken(self) -> list[Broken]:
        """Files of this family that did not import, with the reason."""
        self._look()
        return list(self._broken.values())

    def classes(self) -> dict[str, type[T]]:
        """Name -> the concrete subclass of `kind` that the file of that name defines."""
        self._look()
        return {stem: item for stem, items in self._found.items() for item in items if isinstance(item, type)}

    def instances(self) -> Iterator[T]:
        """Every instance of `kind` that a file of this family holds at its top level."""
        self._look()
        for items in self._found.values():
            yield from (item for item in items if isinstance(item, self.kind))

    def get(self, name: str) -> type[T]:
        """The class called `name`, or `Unknown` with what is near it."""
        classes = self.classes()
        if name not in classes:
            raise Unknown(self.family.rstrip("s").replace("analyse", "analysis"), name, classes)
        return classes[name]

    def _look(self) -> None:
        with self._lock:
            self._search()

    def _search(self) -> None:
        # Files dropped in while the process runs are found at the next question; a changed file of the user's is read anew.
        folder = Path(str(importlib.import_module(self.package).__path__[0]))
        for file in sorted(folder.glob("[!_]*.py")):
            if file not in self._seen:
                self._seen[file] = file.stat().st_mtime
                self._take(file, f"{self.package}.{file.stem}")
        own = settings().extensions / self.family
        present = {file: file.stat().st_mtime for file in sorted(own.glob("[!_]*.py"))}
        for gone in [file for file in self._seen if file.parent != folder and file not in present]:
            self._forget(gone)
        for file, changed in present.items():
            if self._seen.get(file) != changed:
                self._forget(file)
                self._seen[file] = changed
                self._take(file, f"extensions.{self.family}.{file.stem}")

    def _forget(self, file: Path) -> None:
        self._seen.pop(file, None)
        if self._home.get(file.stem) == file:  # a file of that name in the other folder keeps what it has
            del self._home[file.stem], self._found[file.stem]
        self._broken.pop(file, None)

    def _take(self, file: Path, module_name: str) -> None:
        if file.stem in self._found:
            self._broken[file] = Broken(file, f"The name '{file.stem}' is taken by another file of this family.")
            return
        try:
            if module_name.startswith("extensions."):
                module = _import_file(file, module_name)
            else:
                module = importlib.import_module(module_name)
        except Exception as error:
            text = str(error) if isinstance(error, AuscultError) else f"{type(error).__name__}: {error}"
            self._broken[file] = Broken(file, text)
            return
        self._home[file.stem] = file
        self._found[file.stem] = [item for item in vars(module).values() if self._belongs(item, module)]

    def _belongs(self, item: object, module: ModuleType) -> bool:
        if isinstance(item, type):
            concrete = issubclass(item, self.kind) and not inspect.isabstract(item)
            return concrete and item.__module__ == module.__name__ and not item.__name__.startswith("_")
        return isinstance(item, self.kind)


def _import_file(file: Path, module_name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module
