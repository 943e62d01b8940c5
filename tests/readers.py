"""Reads pickles as a process of its own does, without waiting for torch each time: forked from one that has it."""

import json
import subprocess
import sys
from typing import Any

from engine.settings import HOUSE

SCRIPT = """
import json, os, sys
from pathlib import Path
import safetensors.torch, torch
from engine import unpickle
for line in sys.stdin:
    file, folder = json.loads(line)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = unpickle.main(Path(file), Path(folder))
        os.write(writing, said.encode())
        os._exit(1 if said else 0)
    os.close(writing)
    said = os.fdopen(reading, "rb").read().decode()
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said]), flush=True)
"""


class Readers:
    """Stands where engine/weights.py looks for the module `subprocess`."""

    DEVNULL, TimeoutExpired = subprocess.DEVNULL, subprocess.TimeoutExpired

    def __init__(self) -> None:
        self._parent: subprocess.Popen[str] | None = None

    def run(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """What `python -m engine.unpickle FILE FOLDER` would have said."""
        if self._parent is None:
            start = [sys.executable, "-c", SCRIPT]
            self._parent = subprocess.Popen(start, cwd=HOUSE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._parent.stdin is not None and self._parent.stdout is not None
        self._parent.stdin.write(json.dumps(command[-2:]) + "\n")
        self._parent.stdin.flush()
        code, said = json.loads(self._parent.stdout.readline())
        return subprocess.CompletedProcess(command, code, said)

    def close(self) -> None:
        """End the process, where one was started."""
        if self._parent is not None:
            with self._parent:  # closes its input, which ends it, and waits
                pass
