"""Reads one pickle of torch in a process of its own: `python -m engine.unpickle FILE FOLDER`.

The unpickler knows tensors, plain containers and a list of packages whose settings objects become inert records; a file
that names anything else is refused before anything is made of it. What is left to it, memory, time, places to write, is
bounded by the size of the file. Leaves tensors.safetensors and facts.json; exit status 1 and a sentence on the standard
output where it cannot.
"""

import builtins
import collections
import errno
import json
import os
import pickle
import resource
import sys
import tarfile
import types
import zipfile
from pathlib import Path
from typing import Any, NoReturn

from engine import confine

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
SKIPPED = ("optim", "last_optim", "sched", "scaler")  # beginnings of top-level entries that hold no weights of the model
ROOM = 2 * 2**30  # memory beyond what Python and torch have taken, and some copies of the file
LIBRARY_MEMORY = 12 * 2**30  # what those take of address space, where that cannot be asked
SECONDS = 600  # of computing
VALUES = 2_000_000  # that are no tensors; a file of weights has some thousands
DEPTH = 40  # of containers in containers


class Forbidden(Exception):
    """The file asks for something that is not on the list, or for more than a file of its size can mean."""


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


def _encode(text: str, encoding: str = "latin1") -> bytes:
    # How old pickles hold bytes.
    return text.encode("latin1") if encoding == "latin1" else b""


class Reader(pickle.Unpickler):
    """Finds tensors, plain containers and records; refuses everything else by name."""

    def find_class(self, module: str, name: str) -> Any:
        import torch

        # Nothing is imported and no attribute is looked up that may import: what is there already has to do.
        if module in {"builtins", "__builtin__"} and name in PLAIN:
            return getattr(builtins, name)
        if module == "collections" and name in {"OrderedDict", "Counter"}:
            return getattr(collections, name)
        if module == "collections" and name == "defaultdict":
            return Record
        if module == "_codecs" and name == "encode":
            return _encode
        if module == "torch._utils" and name in {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"}:
            return getattr(torch._utils, name)
        held = vars(torch).get(name)
        if module == "torch" and (name in {"Size", "Tensor", "device"} or isinstance(held, torch.dtype)):
            return held
        if module in {"torch", "torch.storage"} and name.endswith("Storage"):
            storage = held or vars(torch.storage).get(name)
            if isinstance(storage, type):
                return storage
        if module in {"torch.nn.parameter", "torch._tensor"} and name in {"Parameter", "Tensor"}:
            return getattr(torch.nn, name, torch.Tensor)
        if module.split(".")[0] in RECORDS:
            return Record
        asked = _shown(f"{module}.{name}")
        raise Forbidden(f"it is a pickle that asks for {asked}, which no file of weights needs. Nothing of it was run.")


def _pickle_module() -> types.ModuleType:
    """What torch.load takes for the pickle module."""
    module = types.ModuleType("reader")
    module.Unpickler = Reader  # type: ignore[attr-defined]
    module.load = lambda handle, **options: Reader(handle, **options).load()  # type: ignore[attr-defined]
    module.UnpicklingError = pickle.UnpicklingError  # type: ignore[attr-defined]
    return module


def split(content: Any, most: float = float("inf")) -> tuple[dict[str, Any], Any]:
    """The tensors by dotted name, of at most so many bytes, and everything else as plain values."""
    import torch

    tensors: dict[str, Any] = {}
    seen = size = 0

    def walk(value: Any, path: str, depth: int) -> Any:
        nonlocal seen, size
        seen += 1
        if seen > VALUES:
            raise Forbidden(f"it holds more than {VALUES:,} values besides its weights, which no file of weights needs.")
        if isinstance(value, torch.Tensor):
            # A tensor of one number can say that it is a billion numbers.
            size += value.numel() * value.element_size()
            if size > most:
                raise Forbidden(f"it claims to hold {size:,} bytes of weights, more than a file of its size can hold.")
            if path:
                tensors[path] = value.detach().to_dense() if value.layout != torch.strided else value.detach()
            return None
        if depth > DEPTH:
            return None
        if isinstance(value, Record):
            return walk(value.plain(), path, depth + 1)
        if isinstance(value, collections.abc.Mapping):
            found = {}
            for key, inner in value.items():
                if isinstance(key, Record):
                    key = key.plain()
                key = str(key) if isinstance(key, str | int | float) else type(key).__name__
                if depth == 0 and key.lower().startswith(SKIPPED):
                    continue
                said = walk(inner, f"{path}.{key}" if path else key, depth + 1)
                if said is not None:
                    found[key] = said
            return found
        if isinstance(value, list | tuple | set | frozenset):
            return [walk(inner, f"{path}.{place}" if path else str(place), depth + 1) for place, inner in enumerate(value)]
        return value if isinstance(value, str | int | float | bool) else None

    facts = walk(content, "", 0)
    return tensors, facts


def _limit(size: int) -> None:
    confine.limit(resource.RLIMIT_AS, (confine.address_space() or LIBRARY_MEMORY) + ROOM + 5 * size)
    confine.limit(resource.RLIMIT_FSIZE, _most(size))
    confine.limit(resource.RLIMIT_CPU, SECONDS)
    confine.limit(resource.RLIMIT_CORE, 0)


def _most(size: int) -> int:
    """Bytes that a file of this size may leave: weights that share memory are written twice."""
    return 4 * size + 2**26


def _complaint(file: Path) -> str:
    """Why this is no pickle of torch, as far as it can be told from outside."""
    with file.open("rb") as handle:
        start = handle.read(4)
    if start == b"PK\x03\x04" and not zipfile.is_zipfile(file):
        return "it is cut short: the end of the archive is not there. Fetch it again."
    if zipfile.is_zipfile(file):
        names = zipfile.ZipFile(file).namelist()
        if not any(name.endswith("data.pkl") for name in names):
            inside = ", ".join(map(_shown, names[:3])) or "nothing"
            return f"it is a zip archive of {inside}, not one that torch.save wrote."
        if any(name.endswith("constants.pkl") for name in names):
            return "it is a program in TorchScript. Auscult never runs code of a checkpoint; save its state_dict instead."
    elif tarfile.is_tarfile(file):
        return "it is a tar archive; unpack it first, and give the file of weights in it."
    return ""


def _shown(text: str) -> str:
    """A text of the file, fit to be shown."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:100])


def _refuse(*given: Any, **named: Any) -> NoReturn:
    raise tarfile.TarError("It is not read that way.")


def read(file: Path, folder: Path) -> None:
    """Read the file into the folder; whatever goes wrong is raised."""
    import torch
    from safetensors.torch import save_file

    # torch.load knows two more ways of reading, which unpack archives or make programs.
    torch.jit.load = _refuse
    tarfile.open = _refuse
    size = file.stat().st_size
    # torch's own list of what is harmless has no settings objects, which these files hold. Reader has its own list,
    # imports nothing for it, and works where nothing can be started or written (engine/confine.py).
    content = torch.load(file, map_location="cpu", pickle_module=_pickle_module(), weights_only=False)
    tensors, facts = split(content, _most(size))
    if not tensors:
        raise Forbidden(f"it holds no tensor; at its top there is {type(content).__name__}.")
    # Tensors that share memory or are views are written whole, each by itself.
    whole = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    save_file(whole, folder / "tensors.safetensors")
    (folder / "facts.json").write_text(json.dumps(facts if isinstance(facts, dict) else {"value": facts}), "utf-8")


def main(file: Path, folder: Path) -> str:
    """Read the file into the folder with bound hands; a sentence where that is not possible."""
    import safetensors.torch  # noqa: F401  (whatever is imported is so before the limits)
    import torch  # noqa: F401

    os.chdir(folder)
    _limit(file.stat().st_size)
    confine.write_only_in(folder)
    try:
        complaint = _complaint(file)
        if not complaint:
            read(file, folder)
    except Forbidden as error:
        return str(error)
    except RecursionError:
        return "what it holds is nested without end."
    except Exception as error:  # a damaged pickle can fail in any way
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            return "it claims to need far more memory than a file of its size can mean."
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return "the disk is full; free some space and try again."
        said = _shown((str(error).strip() or type(error).__name__).splitlines()[0])
        return f"it is no file that torch.save wrote, or it is cut short ({type(error).__name__}: {said})."
    return complaint


if __name__ == "__main__":
    os.umask(0o077)
    said = main(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.write(said + "\n")
    sys.exit(1 if said else 0)
