"""Set Auscult up and start it: `python launch.py`. Nothing but Python 3.11 or newer has to be there.

The environment in .venv is made once; stamps with the hash of the requirements make every later start skip pip.
Then the work is handed over to app/cli.py, which runs inside .venv.
"""

from __future__ import annotations  # an older Python must get far enough to be told that it is too old

import hashlib
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
OLDEST = (3, 11)
UNREACHED = (  # what pip says, on one system or another, when there is no way to the index
    "Temporary failure in name resolution|Name or service not known|nodename nor servname|getaddrinfo failed|"
    "NameResolutionError|NewConnectionError|ConnectTimeout|ReadTimeout|Network is unreachable|Connection refused|ProxyError"
)
NEEDED_GIGABYTES = 3  # of free disk before a first install; a CUDA build of torch takes more


class Stop(Exception):
    """The set-up cannot go on; the text says why and what to do."""


def main(words: list[str]) -> int:
    """Set up what the verb needs, then hand over to it."""
    if sys.version_info < OLDEST:
        print(f"Auscult needs Python 3.11 or newer; this is Python {sys.version_info[0]}.{sys.version_info[1]}.")
        return 1
    if words[:1] in (["--help"], ["-h"]):
        from app.verbs import help_text

        print(help_text("python launch.py"))
        return 0
    try:
        with _alone():
            set_up(dev=words[:1] in (["test"], ["check"]))
    except Stop as reason:
        print(f"\n{reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The next start goes on from here.", file=sys.stderr)
        return 130
    return hand_over(words)


def venv_python() -> Path:
    """The Python of our own environment."""
    folder = HERE / ".venv"
    return folder / "Scripts" / "python.exe" if os.name == "nt" else folder / "bin" / "python"


def set_up(*, dev: bool) -> None:
    """Make .venv and install the requirements, unless a stamp says that this was done."""
    names = ["requirements.txt", *(["requirements-dev.txt"] if dev else [])]
    missing = [name for name in names if not _is_stamped(name)]
    if not missing:
        return
    if not _is_usable():
        _make_environment()
    for name in missing:
        print(f"Installing what {name} lists. The first time this takes some minutes.", flush=True)
        _install(HERE / name)
        if name == "requirements.txt":
            _mend_torchaudio()
        _stamp(name)
    print("Everything is installed.", flush=True)


def _stamp_file(name: str) -> Path:
    return HERE / ".venv" / f"{Path(name).stem}.stamp"


def _hash(name: str) -> str:
    return hashlib.sha256((HERE / name).read_bytes()).hexdigest()


def _is_stamped(name: str) -> bool:
    try:
        return venv_python().exists() and _stamp_file(name).read_text("ascii") == _hash(name)
    except (OSError, UnicodeDecodeError):
        return False


def _stamp(name: str) -> None:
    beside = _stamp_file(name).with_suffix(".tmp")
    beside.write_text(_hash(name), "ascii")
    os.replace(beside, _stamp_file(name))


@contextmanager
def _alone() -> Iterator[None]:
    """Two starts at once must not install into the same environment: the second waits for the first."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with Path(__file__).open("rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another start is setting up; waiting for it.", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _is_usable() -> bool:
    if not venv_python().exists():
        return False
    program = f"import sys, pip; sys.exit(sys.version_info < {OLDEST})"
    return subprocess.run([str(venv_python()), "-c", program], capture_output=True).returncode == 0


def _make_environment() -> None:
    free = shutil.disk_usage(HERE).free / 1e9
    if free < NEEDED_GIGABYTES:
        raise Stop(f"There are {free:.1f} GB free on the disk of {HERE}; at least {NEEDED_GIGABYTES} GB are needed.")
    print(f"Making a Python environment of our own in {HERE / '.venv'}.", flush=True)
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(HERE / ".venv")], capture_output=True, text=True)
    if made.returncode == 0:
        return
    said = (made.stdout + made.stderr).strip()
    if "ensurepip" in said or "No module named venv" in said:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise Stop(
            "This Python cannot make environments: its venv module is missing. "
            f"On Debian or Ubuntu 'sudo apt install python{version}-venv' adds it; then start again."
        )
    raise Stop(_reason(said) or f"The environment could not be made: {said}")


def _install(requirements: Path) -> None:
    command = [str(venv_python()), "-m", "pip", "install", "-r", str(requirements)]
    settings = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", **os.environ, "PYTHONUNBUFFERED": "1"}
    pip = subprocess.Popen(
        command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    said: list[str] = []
    try:
        _follow(pip, said)
    finally:
        if pip.poll() is None:
            pip.terminate()
        code = pip.wait()
    if code:
        text = "\n".join(said)
        tail = "\n".join(said[-12:])
        raise Stop(
            _reason(text) or f"{tail}\n\npip could not install what {requirements.name} lists; its last words are above."
        )


def _follow(pip: subprocess.Popen[str], said: list[str]) -> None:
    """Say in plain words what pip is doing, while it is doing it."""
    assert pip.stdout is not None
    lines: queue.Queue[str | None] = queue.Queue()
    stream = pip.stdout

    def read() -> None:
        for line in stream:
            lines.put(line.rstrip())
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    shown, since, told = "", time.monotonic(), time.monotonic()
    while True:
        try:
            line = lines.get(timeout=1.0)
        except queue.Empty:
            # Something big is on its way. A terminal sees the seconds pass; a log gets a line now and then.
            now = time.monotonic()
            if shown and sys.stdout.isatty():
                print(f"\r  {shown} ({now - since:.0f} s)", end="", flush=True)
            elif shown and now - told > 20:
                told = now
                print(f"  still: {shown} ({now - since:.0f} s)", flush=True)
            continue
        if line is None:
            break
        said.append(line)
        words = plain(line)
        if words and words != shown:
            end = "\n" if shown and sys.stdout.isatty() else ""
            print(f"{end}  {words}", end="" if sys.stdout.isatty() else "\n", flush=True)
            shown, since, told = words, time.monotonic(), time.monotonic()
    if shown and sys.stdout.isatty():
        print(flush=True)


def plain(line: str) -> str:
    """A line of pip's in plain words; empty where it says nothing to a person."""
    line = line.strip()
    found = re.match(r"Collecting ([\w.-]+)", line)
    if found:
        return f"Finding {found[1]}"
    found = re.match(r"(Downloading|Using cached|Processing) (?:\S*/)?([A-Za-z0-9_.]+?)-\d\S*(?: \((\d[^()]*B)\))?", line)
    if found and ".metadata" not in line:
        verb = "Fetching" if found[1] == "Downloading" else "Taking from this machine"
        return f"{verb} {found[2]}, {found[3]}" if found[3] else f"{verb} {found[2]}"
    if line.startswith("Building wheel"):
        return f"Building {line.split()[3]}"
    if line.startswith("Installing collected packages:"):
        return f"Installing {line.count(',') + 1} packages; this takes a minute or two"
    return ""


def _reason(said: str) -> str:
    """The sentence for a failure that a person can mend; empty when it is none of those."""
    if "No space left on device" in said or "Errno 28" in said or "Disk quota exceeded" in said:
        return f"The disk of {HERE} is full. Make room (3 GB, with a CUDA build of torch 8 GB) and start again."
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return "The package index could not be trusted: its certificate is unknown here. PIP_CERT names a file with yours."
    if re.search(UNREACHED, said):
        return (
            "The package index could not be reached. Connect to the network, or name a mirror in PIP_INDEX_URL or a folder "
            "of wheels in PIP_FIND_LINKS, and start again; what was fetched is kept."
        )
    if "Permission denied" in said or "Errno 13" in said:
        return (
            f"Something in {HERE / '.venv'} may not be written by this user. Mend its owner, or delete it, and start again."
        )
    return ""


def _mend_torchaudio() -> None:
    """PyPI's torchaudio carries native libraries that need the CUDA runtime; beside a CPU build of torch they cannot load.

    All that Auscult uses of torchaudio is Python on top of torch and runs without them. On a CUDA build nothing is touched.
    """
    said = _in_environment("import torchaudio")
    if "Could not load this library" not in said and "libc10_cuda" not in said and "cannot open shared object" not in said:
        return
    said = _in_environment("import launch; launch.remove_unusable_libraries()")
    if said:
        raise Stop(f"torchaudio does not load and could not be mended: {said.splitlines()[-1]}")
    said = _in_environment("import torchaudio")
    if said:
        raise Stop(f"torchaudio still does not load: {said.splitlines()[-1]}")


def _in_environment(program: str) -> str:
    """What a small program says on standard error inside .venv when it fails; empty when it succeeds."""
    settings = {**os.environ, "PYTHONPATH": str(HERE)}
    done = subprocess.run(
        [str(venv_python()), "-c", program], env=settings, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    return "" if done.returncode == 0 else done.stderr.strip() or f"it ended with {done.returncode}"


def remove_unusable_libraries() -> None:
    """Delete the native files of torchaudio that do not load beside a torch without CUDA. Runs inside .venv."""
    import ctypes
    import importlib.util

    import torch

    spec = importlib.util.find_spec("torchaudio")
    if torch.version.cuda is not None or spec is None or spec.origin is None:
        return
    folder = Path(spec.origin).parent
    if HERE / ".venv" not in folder.parents:
        return
    files = sorted(folder.rglob("*.so"))
    unusable = []
    for file in files:
        try:
            ctypes.CDLL(str(file))
        except OSError:
            unusable.append(file)
    for file in unusable:
        file.unlink()
    if unusable:
        names = ", ".join(file.name for file in unusable)
        print(
            f"  This torch is a CPU build, so the CUDA-only parts of torchaudio were removed from .venv: {names}.",
            flush=True,
        )


def hand_over(words: list[str]) -> int:
    """Become `app.cli`, or wait for it where a process cannot become another."""
    # The user's folder stays the current one, so that relative file names mean what they say; our modules are found anyway,
    # and a folder called "app" that happens to lie there is not mistaken for ours.
    settings = {**os.environ, "PYTHONSAFEPATH": "1"}
    settings["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [str(venv_python()), "-m", "app.cli", *words]
    if os.name != "nt":
        sys.stdout.flush()
        os.execve(command[0], command, settings)
    with subprocess.Popen(command, env=settings) as child:
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                continue  # the child was interrupted too and is tidying up


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
