"""A served workspace and a Chromium to look at it with."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from served import Served, serve

from app.browser import find_browser

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Auscult, served for the whole session."""
    with serve(tmp_path_factory.mktemp("served"), AUSCULT_OFFLINE="1") as served:
        yield served


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
LEAVING = (r"AbortError: (signal is|BodyStreamBuffer was) aborted", r"Unexpected error Connection errored out")


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
