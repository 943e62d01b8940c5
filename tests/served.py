"""Auscult, served in a process of its own for as long as a test needs it."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from engine.settings import HOUSE

READY_SECONDS = 90


@dataclass(frozen=True)
class Served:
    """A server of its own workspace."""

    address: str  # http://127.0.0.1:PORT
    workspace: Path
    pid: int


@contextmanager
def serve(workspace: Path, **environment: str) -> Iterator[Served]:
    """Auscult, served from a workspace of its own. When it ends, nothing that it started is left."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = workspace / "said.txt"
    settings = {**os.environ, "AUSCULT_WORKSPACE": str(workspace), "PYTHONPATH": str(HOUSE), **environment}
    with said.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "--port", str(port), "--no-browser"],
            cwd=HOUSE,
            env=settings,
            stdout=output,
            stderr=output,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(process, address, said)
        yield Served(address, workspace, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(40)
        finally:
            process.kill()
            left = _left_behind(workspace)
            for one in left:
                one.kill()
    assert code == 0, said.read_text()
    assert not left, f"The server left {left} behind."


def _wait_until_ready(process: "subprocess.Popen[bytes]", address: str, said: Path) -> None:
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, said.read_text()
        try:
            with urllib.request.urlopen(f"{address}/healthz", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"The server was not ready after {READY_SECONDS} s: {said.read_text()}")


def _left_behind(workspace: Path) -> list[psutil.Process]:
    """Processes that work for this workspace."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("AUSCULT_WORKSPACE") == str(workspace):
                found.append(process)
        except psutil.Error:
            continue
    return found
