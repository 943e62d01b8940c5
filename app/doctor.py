"""What this installation has and lacks: one line each, and what to do where something is wrong."""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from engine.errors import explain
from engine.settings import HOUSE, settings

# Versions below these have known holes that Auscult would be open to.
FLOORS = {
    "gradio": "6.20.0",
    "streamlit": "1.54.0",
    "starlette": "0.47.2",
    "python-multipart": "0.0.27",
    "torch": "2.10.0",
    "transformers": "5.2.1",
}
PYTHON_FLOORS = {(3, 11): 13, (3, 12): 11, (3, 13): 4}  # series -> the first release in which tarfile cannot be tricked
NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "lustre", "beegfs", "gpfs", "9p", "afs"}
_REPAIR = "Delete .venv and start 'python launch.py' again."
SOUND_FORMATS = ("WAV", "FLAC", "OGG", "MP3")


@dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    name: str
    state: Literal["ok", "warning", "wrong"]
    said: str
    advice: str = ""

    @property
    def is_wrong(self) -> bool:
        return self.state == "wrong"

    @property
    def document(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.state:<9}{self.name:<13}{self.said}{f' {self.advice}' if self.advice else ''}"


def examine() -> list[Finding]:
    """Look at everything."""
    return [finding for check in CHECKS for finding in _guarded(check)]


def _guarded(check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    try:
        return list(check())
    except Exception as error:  # a broken package may raise anything; the other lines are still worth having
        return [Finding(check.__name__.strip("_"), "wrong", explain(error), _REPAIR)]


def _ok(name: str, said: str) -> Finding:
    return Finding(name, "ok", said)


def _doubt(name: str, said: str, advice: str) -> Finding:
    return Finding(name, "warning", said, advice)


def _wrong(name: str, said: str, advice: str) -> Finding:
    return Finding(name, "wrong", said, advice)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3])


def _python() -> Iterator[Finding]:
    version = sys.version_info[:3]
    said = ".".join(str(number) for number in version)
    floor = PYTHON_FLOORS.get(version[:2], 0)
    if version[2] < floor:
        series = f"{version[0]}.{version[1]}"
        yield _doubt("Python", f"{said}.", f"Update it to {series}.{floor} or newer: older ones unpack unsafely.")
    else:
        yield _ok("Python", f"{said}.")


def _packages() -> Iterator[Finding]:
    pins = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (HOUSE / "requirements.txt").read_text("utf-8"), re.MULTILINE))
    installed: dict[str, str] = {}
    for name in {*pins, *FLOORS}:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield _wrong("package", f"{name} is not installed.", _REPAIR)
    unsafe = [name for name, floor in FLOORS.items() if _numbers(installed.get(name, floor)) < _numbers(floor)]
    for name in unsafe:
        yield _wrong("package", f"{name} {installed[name]} has known holes; {FLOORS[name]} does not.", _REPAIR)
    for name, pin in sorted(pins.items()):
        if name in installed and name not in unsafe and _numbers(installed[name]) != _numbers(pin):
            yield _doubt("package", f"{name} is {installed[name]}; Auscult was tested with {pin}.", _REPAIR)
    if not unsafe:
        yield _ok("packages", f"{len(installed)} installed; none is a version known to be unsafe.")


def _torch() -> Iterator[Finding]:
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    yield _ok("torch", f"{torch.__version__}, a {build} build, {torch.get_num_threads()} threads.")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(index)
            yield _ok("GPU", f"{found.name}, {found.total_memory / 1e9:.0f} GB.")
    elif shutil.which("nvidia-smi") and torch.version.cuda is None:
        yield Finding(
            "GPU",
            "warning",
            "There is one, but this torch is a CPU build.",
            "Put a CUDA build of torch into .venv.",
        )
    elif torch.version.cuda is not None:
        yield _doubt("GPU", "None that this torch can use.", "Where there should be one, look at its driver.")
    else:
        yield _ok("GPU", "None; everything runs on the CPU.")


def _torchaudio() -> Iterator[Finding]:
    import torchaudio

    version = str(torchaudio.__version__)
    if any(Path(str(torchaudio.__file__)).parent.rglob("*.so")):
        yield _ok("torchaudio", f"{version}, with its native libraries.")
    else:
        yield _ok("torchaudio", f"{version}; its native libraries, which need CUDA, were removed; none is used.")


def _codecs() -> Iterator[Finding]:
    import soundfile

    missing = [name for name in SOUND_FORMATS if name not in soundfile.available_formats()]
    said = f"{soundfile.__libsndfile_version__} reads {len(soundfile.available_formats())} formats"
    if missing:
        yield _wrong("libsndfile", f"{said}, but not {', '.join(missing)}.", _REPAIR)
    else:
        yield _ok("libsndfile", f"{said}, among them {', '.join(SOUND_FORMATS)}.")
    import av

    missing = [name for name in ("aac", "opus", "mp3") if name not in av.codecs_available]
    if missing:
        yield _doubt("PyAV", f"{av.__version__} does not decode {', '.join(missing)}.", _REPAIR)
    else:
        yield _ok("PyAV", f"{av.__version__} decodes what libsndfile does not: aac, opus in mp4 and webm.")


def _espeak() -> Iterator[Finding]:
    import espeakng_loader

    library, data = Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path())
    if library.exists() and data.exists():
        yield _ok("espeak-ng", f"{metadata.version('espeakng-loader')}; the spoken corpus can be made.")
    else:
        yield _wrong("espeak-ng", "Its library or data are missing, so the spoken corpus cannot be made.", _REPAIR)


def _browser() -> Iterator[Finding]:
    from app.browser import find_browser

    path = find_browser()
    if path:
        yield _ok("browser", f"{path}.")
    else:
        yield Finding(
            "browser",
            "warning",
            "No Chromium or Chrome was found.",
            "'launch.py test' fetches one.",
        )


def _workspace() -> Iterator[Finding]:
    folder = settings().workspace
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        yield Finding(
            "workspace",
            "wrong",
            f"{folder} cannot be written: {error.strerror}.",
            "Set AUSCULT_WORKSPACE to another folder.",
        )
        return
    yield _ok("workspace", f"{folder}.")
    free = shutil.disk_usage(folder).free / 1e9
    if free < 1:
        yield _wrong("disk", f"{free:.1f} GB free.", "Make room, or set AUSCULT_WORKSPACE to another disk.")
    elif free < 10:
        yield _doubt("disk", f"{free:.1f} GB free.", "Models and rows need some GB.")
    else:
        yield _ok("disk", f"{free:.0f} GB free.")
    kind = _file_system(folder)
    if kind in NETWORK_FILE_SYSTEMS:
        yield Finding(
            "file system",
            "warning",
            f"{kind}, over a network.",
            "Serve it from one machine only: locks may not reach.",
        )
    else:
        yield _ok("file system", f"{kind or 'of an unknown kind'}.")


def _file_system(folder: Path) -> str:
    """The kind of file system that a folder lies on."""
    import psutil

    mounts = [(part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=True)]
    holding = [(point, kind) for point, kind in mounts if os.path.commonpath([point, folder]) == point]
    return max(holding, key=lambda mount: len(mount[0]), default=("", ""))[1]


def _network() -> Iterator[Finding]:
    if settings().offline:
        yield _ok("network", "Off, by AUSCULT_OFFLINE or HF_HUB_OFFLINE.")
    else:
        yield _ok("network", "Used only when an upstream is fetched.")


def _extensions() -> Iterator[Finding]:
    from app import workbench

    for file in workbench.broken():
        yield _wrong("extension", f"{file.file} could not be read: {file.error}", "Mend or remove it.")


CHECKS = (_python, _packages, _torch, _torchaudio, _codecs, _espeak, _browser, _workspace, _network, _extensions)
