"""Reads one pickle of torch in a process of its own: `python -m engine.unpickle FILE FOLDER`.

The unpickler knows tensors, plain containers and a list of packages whose settings objects become inert records; a file
that names anything else is refused before anything is made of it. Leaves tensors.safetensors and facts.json; exit status
1 and a sentence on the standard output where it cannot.
"""

import collections
import json
import os
import pickle
import resource
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

# Packages whose objects may stand in a checkpoint. None of their code is imported: a record takes the place of each.
RECORDS = {"argparse", "fairseq", "hydra", "numpy", "omegaconf", "optimizers", "pathlib", "s3prl", "typing", "enum"}
PLAIN = {
    "set",
    "frozenset",
    "dict",
    "list",
    "tuple",
    "int",
    "float",
    "bool",
    "str",
    "bytes",
    "bytearray",
    "complex",
    "slice",
}
SKIPPED = ("optim", "sched", "scaler")  # beginnings of top-level entries that hold no weights of the model
LIBRARY_MEMORY = 12 * 2**30  # address space that Python and torch take for themselves, with room


class Record:
    """Takes the place of an object of a class that is not imported: keeps what it was made of, and does nothing."""

    given: tuple[Any, ...]
    named: dict[str, Any]
    state: Any
    entries: dict[Any, Any]

    def __new__(cls, *given: Any, **named: Any) -> "Record":
        # A pickle makes objects without calling __init__.
        record = super().__new__(cls)
        record.given, record.named, record.state, record.entries = given, named, None, {}
        return record

    def __init__(self, *given: Any, **named: Any) -> None:
        """Everything is kept already."""

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.entries[key] = value

    def append(self, value: Any) -> None:
        """An item of a list-like object."""
        self.entries[len(self.entries)] = value

    def extend(self, values: Any) -> None:
        """Items of a list-like object."""
        for value in values:
            self.append(value)

    def plain(self) -> Any:
        """What it holds, as plainly as it can be said."""
        state = self.state if isinstance(self.state, dict) else {}
        if "_content" in state:  # omegaconf: a node holds other nodes
            return state["_content"]
        if "_val" in state:  # omegaconf: a node holds a value
            return state["_val"]
        values = {**state, **self.named, **self.entries}
        if values:
            return values
        return self.given[0] if len(self.given) == 1 else list(self.given)


class Forbidden(Exception):
    """The file asks for something that is not on the list."""


def _encode(text: str, encoding: str = "latin1") -> bytes:
    # How old pickles hold bytes.
    return text.encode("latin1") if encoding == "latin1" else b""


class Reader(pickle.Unpickler):
    """Finds tensors, plain containers and records; refuses everything else by name."""

    def find_class(self, module: str, name: str) -> Any:
        import torch

        if module in {"builtins", "__builtin__"} and name in PLAIN:
            return getattr(__import__("builtins"), name)
        if module == "collections" and name in {"OrderedDict", "Counter"}:
            return getattr(collections, name)
        if module == "collections" and name == "defaultdict":
            return Record
        if module == "_codecs" and name == "encode":
            return _encode
        if module == "torch._utils" and name in {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"}:
            return getattr(torch._utils, name)
        if module == "torch" and (
            name in {"Size", "Tensor", "device"} or isinstance(getattr(torch, name, None), torch.dtype)
        ):
            return getattr(torch, name)
        if module in {"torch", "torch.storage"} and name.endswith("Storage"):
            return getattr(torch, name, None) or getattr(torch.storage, name)
        if module in {"torch.nn.parameter", "torch._tensor"} and name in {"Parameter", "Tensor"}:
            return getattr(torch.nn, name, torch.Tensor)
        if module.split(".")[0] in RECORDS:
            return Record
        raise Forbidden(
            f"it is a pickle that asks for {module}.{name}, which no file of weights needs. Nothing of it was run."
        )


def _pickle_module() -> types.ModuleType:
    """What torch.load takes for the pickle module."""
    module = types.ModuleType("reader")
    module.Unpickler = Reader  # type: ignore[attr-defined]
    module.load = lambda handle, **options: Reader(handle, **options).load()  # type: ignore[attr-defined]
    module.UnpicklingError = pickle.UnpicklingError  # type: ignore[attr-defined]
    return module


def split(content: Any) -> tuple[dict[str, Any], Any]:
    """The tensors by dotted name, and everything else as plain values."""
    import torch

    tensors: dict[str, Any] = {}

    def walk(value: Any, path: str, depth: int) -> Any:
        if isinstance(value, torch.Tensor):
            if path:
                tensors[path] = value.detach().to_dense() if value.layout != torch.strided else value.detach()
            return None
        if depth > 40:
            return None
        if isinstance(value, Record):
            return walk(value.plain(), path, depth + 1)
        if isinstance(value, collections.abc.Mapping):
            found = {}
            for key, inner in value.items():
                if isinstance(key, Record):
                    key = key.plain()
                if depth == 0 and str(key).lower().startswith(SKIPPED):
                    continue
                said = walk(inner, f"{path}.{key}" if path else str(key), depth + 1)
                if said is not None:
                    found[str(key)] = said
            return found
        if isinstance(value, list | tuple | set | frozenset):
            return [walk(inner, f"{path}.{place}" if path else str(place), depth + 1) for place, inner in enumerate(value)]
        return value if isinstance(value, str | int | float | bool) else None

    facts = walk(content, "", 0)
    return tensors, facts


def _limit(file: Path) -> None:
    size = file.stat().st_size
    resource.setrlimit(resource.RLIMIT_AS, (LIBRARY_MEMORY + 4 * size,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * size + 2**26,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (600,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _complaint(file: Path) -> str:
    """Why this is no pickle of torch, as far as it can be told from outside."""
    with file.open("rb") as handle:
        start = handle.read(4)
    if start == b"PK\x03\x04" and not zipfile.is_zipfile(file):
        return "it is cut short: the end of the archive is not there. Fetch it again."
    if zipfile.is_zipfile(file):
        names = zipfile.ZipFile(file).namelist()
        if not any(name.endswith("data.pkl") for name in names):
            return f"it is a zip archive of {', '.join(names[:3])}, not one that torch.save wrote."
        if any(name.endswith("constants.pkl") for name in names):
            return "it is a program in TorchScript. Auscult never runs code of a checkpoint; save its state_dict instead."
    return ""


def main(file: Path, folder: Path) -> str:
    """Read the file into the folder; a sentence where that is not possible."""
    import torch
    from safetensors.torch import save_file

    _limit(file)
    complaint = _complaint(file)
    if complaint:
        return complaint
    try:
        content = torch.load(file, map_location="cpu", pickle_module=_pickle_module(), weights_only=False)
    except Forbidden as error:
        return str(error)
    except Exception as error:  # a damaged pickle can fail in any way
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        return f"it is no file that torch.save wrote, or it is cut short ({type(error).__name__}: {said})."
    tensors, facts = split(content)
    if not tensors:
        return f"it holds no tensor; at its top there is {type(content).__name__}."
    # Tensors that share memory or are views are written whole, each by itself.
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, folder / "tensors.safetensors")
    (folder / "facts.json").write_text(json.dumps(facts if isinstance(facts, dict) else {"value": facts}), "utf-8")
    return ""


if __name__ == "__main__":
    os.umask(0o077)
    said = main(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.write(said + "\n")
    sys.exit(1 if said else 0)
