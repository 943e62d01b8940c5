"""Board: every file of app/board/pages is a page.

A page is a module with `TITLE` (its name in the bar on top), `ORDER` (its place there; the first is what opens) and
`render()`, which draws it. The file's stem is its address: `/board/jobs`. A page that fails says so in its own place.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from app.board import pages, widgets
from engine.errors import explain
from engine.settings import HOUSE


@dataclass(frozen=True)
class Page:
    """One page of Board."""

    id: str
    title: str
    order: int
    render: Callable[[], None]


def find_pages() -> list[Page]:
    """The page of every file in app/board/pages, in the order of the bar."""
    files = sorted(Path(pages.__path__[0]).glob("[!_]*.py"))
    return sorted((_take(file.stem) for file in files), key=lambda page: (page.order, page.id))


def _take(stem: str) -> Page:
    try:
        module = importlib.import_module(f"{pages.__name__}.{stem}")
        return Page(stem, module.TITLE, module.ORDER, module.render)
    except Exception as error:
        title, said = stem.capitalize(), explain(error)
        return Page(stem, title, 1000, lambda: widgets.refusal(f"The page {title} could not be read", said))


def main() -> None:
    """Draw the page that the address names."""
    st.set_page_config(page_title="Auscult Board", page_icon=str(HOUSE / "assets" / "logo.svg"), layout="wide")
    st.logo(str(HOUSE / "assets" / "logo.svg"), size="medium")
    widgets.look()
    found = find_pages()
    shown = [
        st.Page(widgets.guarded(page.render), title=page.title, url_path=page.id, default=place == 0)
        for place, page in enumerate(found)
    ]
    st.navigation(shown, position="top").run()


main()
