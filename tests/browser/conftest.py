"""A served workspace and a Chromium to look at it with."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.browser import find_browser
from engine.settings import HOUSE

HERE = Path(__file__).parent
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
READY_SECONDS = 90


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


@dataclass(frozen=True)
class Served:
    """A server of its own workspace."""

    address: str  # http://127.0.0.1:PORT
    workspace: Path
    pid: int


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Auscult, served for the whole session. When it ends, nothing that it started is left."""
    workspace = tmp_path_factory.mktemp("served")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = workspace / "said.txt"
    settings = {**os.environ, "AUSCULT_WORKSPACE": str(workspace), "AUSCULT_OFFLINE": "1", "PYTHONPATH": str(HOUSE)}
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


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    path = find_browser()
    if not path:
        reason = os.environ.get("AUSCULT_NO_BROWSER") or "No Chromium or Chrome is installed; 'launch.py test' fetches one."
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield chromium
        chromium.close()


# Gradio says so in the console when a page is left, by a link or a reload, while it asks for something.
LEAVING = (r"AbortError: signal is aborted", r"Unexpected error Connection errored out")


@dataclass
class Complaints:
    """What a browser complained about during a test."""

    said: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=lambda: list(LEAVING))  # patterns of complaints that the test expects

    def left(self) -> list[str]:
        return [text for text in self.said if not any(re.search(pattern, text) for pattern in self.allowed)]


@pytest.fixture
def complaints() -> Complaints:
    """What the page complains about: a test that expects a complaint appends its pattern to `complaints.allowed`."""
    return Complaints()


@pytest.fixture
def page(browser: Any, server: Served, complaints: Complaints) -> Iterator[Any]:
    """A new page. The test fails on console errors, page errors and requests to other machines that it does not allow."""
    context = browser.new_context(viewport={"width": 1280, "height": 720}, base_url=server.address)
    page = context.new_page()
    page.on("console", lambda message: message.type == "error" and complaints.said.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: complaints.said.append(f"page: {error}"))
    page.on("request", lambda request: _stays_here(request.url, server) or complaints.said.append(f"outside: {request.url}"))
    yield page
    said = complaints.left()
    context.close()
    assert not said, "\n".join(said)


def _stays_here(url: str, server: Served) -> bool:
    return url.startswith((server.address, "data:", "blob:", "about:"))
