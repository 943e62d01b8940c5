"""Board: every file of app/board/pages is a page.

A page is a module with `TITLE` (its name in the bar on top), `ORDER` (its place there; the first is what opens) and
`render()`, which draws it. The file's stem is its address: `/board/jobs`. A page that fails says so in its own place.
"""

import streamlit as st

from app.board import pages, widgets
from app.pages import Page, find
from engine.settings import HOUSE


def find_pages() -> list[Page]:
    """The pages of Board, in the order of the bar."""
    return find(pages, "render", widgets.refusal)


def main() -> None:
    """Draw the page that the address names."""
    st.set_page_config(page_title="Auscult Board", page_icon=str(HOUSE / "assets" / "logo.svg"), layout="wide")
    st.logo(str(HOUSE / "assets" / "logo.svg"), size="medium")
    widgets.look()
    found = find_pages()
    shown = [
        st.Page(widgets.guarded(page.draw), title=page.title, url_path=page.id, default=place == 0)
        for place, page in enumerate(found)
    ]
    st.navigation(shown, position="top").run()


main()
