"""Weights on disk: reading a file that somebody else made, and putting it into a network with nothing left over.

A pickle can hold a call of anything. It is read by a process of its own (`engine.unpickle`) that knows a short list of
classes, has limits and no way back but files; what it leaves is kept, so that a file is read that way once.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from engine.errors import Refused
from engine.settings import HOUSE, settings

READ_SECONDS = 900  # for the process that reads a pickle

# How files begin that are taken for weights by mistake.
OTHERS = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"RIFF": "a WAV sound, or a picture or film",
    b"fLaC": "a FLAC sound",
    b"OggS": "an Ogg sound",
    b"ID3": "an MP3 sound",
    b"%PDF": "a PDF document",
    b"\x1f\x8b": "a gzip archive",
    b"\x89HDF": "an HDF5 file, as TensorFlow writes them",
    b"\x93NUMPY": "a NumPy array",
    b"version https://git-lfs": "a pointer of git-lfs that stands for the real file",
}
# And texts, whatever their case and the space before them.
TEXTS = {
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"<?xml": "an XML document",
    b"{": "a text in JSON",
    b"[": "a text in JSON",
    b"#!": "a script",
}


@dataclass(frozen=True)
class Checkpoint:
    """What a file of weights holds. Names of nested mappings are joined with dots: "model.encoder.weight"."""

    file: Path
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]  # all else that is plain: numbers, text, lists and mappings, settings objects as mappings

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin so, without that beginning."""
        return {name.removeprefix(prefix): tensor for name, tensor in self.tensors.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class Fit:
    """How the weights of a file went into a network."""

    source: str
    tensors: int
    parameters: int
    unused: tuple[str, ...] = ()  # names of the file that are no part of the network: heads, quantizers


def stamp(*files: Path) -> str:
    """Short name of these files as they are now; another one as soon as one of them is replaced."""
    print_ = hashlib.sha256()
    for file in files:
        if file.exists():
            about = file.stat()
            print_.update(f"{file.name} {about.st_size} {about.st_mtime_ns};".encode())
    return print_.hexdigest()[:16]


def read(file: Path) -> Checkpoint:
    """Every tensor and every setting of a file, safetensors or pickle. No code of the file runs."""
    if not file.is_file():
        raise Refused(f"'{file}' is {'a folder' if file.is_dir() else 'not there'}; a file of weights is expected.")
    with file.open("rb") as handle:
        start = handle.read(512)
    if not start:
        raise Refused(f"'{file}' is empty; a file of weights is expected.")
    if what := _something_else(start):
        raise Refused(f"'{file}' is {what}; a file of weights (safetensors, or one written by torch.save) is expected.")
    if file.suffix == ".safetensors" or start[8:9] == b"{":
        return Checkpoint(file, _safetensors(file), {})
    folder = converted(file)
    if not (folder / "facts.json").exists():
        _convert(file, folder)
    facts = json.loads((folder / "facts.json").read_text("utf-8"))
    return Checkpoint(file, _safetensors(folder / "tensors.safetensors"), facts)


def _something_else(start: bytes) -> str:
    found = next((what for magic, what in OTHERS.items() if start.startswith(magic)), "")
    if found or b"\0" in start:
        return found
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((what for beginning, what in TEXTS.items() if text.startswith(beginning)), "")


def converted(file: Path) -> Path:
    """The folder that keeps what a pickle holds."""
    return _kept() / f"{_place(file)}-{stamp(file)}"


def conversions(file: Path) -> list[Path]:
    """Every folder that keeps what a file holds, or held before it was replaced."""
    return sorted(_kept().glob(f"{_place(file)}-*"))


def _kept() -> Path:
    return settings().downloads / "converted"


def _place(file: Path) -> str:
    return hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:12]


def _safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except Exception as error:  # it has several of its own
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise Refused(f"'{file}' cannot be read as safetensors ({said}); it may be cut short: fetch it again.") from error


def _convert(file: Path, folder: Path) -> None:
    """Have a process of its own read the pickle; the folder is whole or absent."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{secrets.token_hex(3)}.{os.getpid()}.tmp")
    beside.mkdir()
    command = [sys.executable, "-m", "engine.unpickle", str(file.resolve()), str(beside)]
    # Nothing of this process's environment is its business, but what Python and torch need to start.
    kept = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT")
    surroundings = {name: os.environ[name] for name in kept if name in os.environ}
    surroundings |= {"HOME": str(beside), "TMPDIR": str(beside), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=HOUSE,
            env=surroundings,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=READ_SECONDS,
            check=False,
        )
        said = done.stdout.strip().splitlines()
        if done.returncode == 1 and said:
            raise Refused(f"'{file}' cannot be read as weights: {said[-1]}")
        if done.returncode != 0:
            raise Refused(
                f"'{file}' cannot be read as weights: it broke the process that read it ({_end(done.returncode)})."
            )
        for stray in set(beside.iterdir()) - {beside / "tensors.safetensors", beside / "facts.json"}:
            shutil.rmtree(stray) if stray.is_dir() else stray.unlink()
        with suppress(OSError):  # another process was quicker
            beside.rename(folder)
    except subprocess.TimeoutExpired as error:
        raise Refused(f"'{file}' was not read within {READ_SECONDS // 60} minutes, so it was given up.") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _end(code: int) -> str:
    try:
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"
    except ValueError:
        return f"signal {-code}"


def fit(network: nn.Module, given: Mapping[str, Tensor], source: str, unused: tuple[str, ...] = ()) -> Fit:
    """Put weights into a network: every one that it has and no other; `source` names the file where that fails.

    The network may lie on the meta device; it computes with float32 afterwards.
    """
    own = network.state_dict()
    missing = [name for name in own if name not in given]
    extra = [name for name in given if name not in own]
    wrong = [
        f"{name} has shape {tuple(given[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in given and given[name].shape != own[name].shape
    ]
    if missing or extra or wrong:
        said = [f"{len(missing)} weights are missing ({_few(missing)})"] if missing else []
        said += [f"{len(extra)} are not part of this architecture ({_few(extra)})"] if extra else []
        said += [f"{len(wrong)} do not fit ({_few(wrong)})"] if wrong else []
        raise Refused(
            f"The weights in {source} are not those of the model that its configuration describes: {'; '.join(said)}."
        )
    # A file that is mapped into memory is left as soon as it is copied: it may be deleted while the network lives.
    network.load_state_dict({name: tensor.clone() for name, tensor in given.items()}, assign=True)
    network.float()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Fit(source, len(given), parameters, unused)


def renamed(state: Mapping[str, Tensor], rules: list[tuple[str, str]]) -> dict[str, Tensor]:
    """The tensors under other names: each rule (pattern, replacement) is applied in turn; what none knows keeps its name."""
    named = {}
    for name, tensor in state.items():
        for pattern, ours in rules:
            name = re.sub(pattern, ours, name)
        named[name] = tensor
    return named


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
