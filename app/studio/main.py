"""Studio: every file of app/studio/pages is a tab.

A page is a module with `TITLE` (what its tab says), `ORDER` (its place among the tabs) and `build()`, which makes its
components inside the tab and wires their events; `widgets.on_open` runs something when a browser opens Studio.
The file's stem is its address: `/studio/?tab=jobs`. A page that fails to import shows why in its own tab.
"""

from typing import Any

import gradio as gr

from app.pages import Page, find
from app.studio import pages, widgets
from engine.settings import HOUSE

ASSETS = HOUSE / "assets"


def find_pages() -> list[Page]:
    """The pages of Studio, in the order of its tabs."""
    return find(pages, "build", widgets.refusal)


def build() -> gr.Blocks:
    """All of Studio, to be mounted or launched with the options of `look()`."""
    found = find_pages()
    studio = gr.Blocks(title="Auscult Studio", analytics_enabled=False, fill_width=True)
    with studio:
        widgets.header((ASSETS / "logo.svg").read_text("utf-8"))
        with gr.Tabs(elem_id="pages") as tabs:
            for page in found:
                with gr.Tab(page.title, id=page.id, elem_id=f"page-{page.id}") as tab:
                    page.draw()
                # The address follows the tab, so that a reload comes back to it. (Gradio keeps the word "page" for itself.)
                tab.select(None, js=_FOLLOW % {"id": page.id})

        def choose(request: gr.Request) -> Any:
            asked = request.query_params.get("tab")
            return gr.Tabs(selected=asked) if asked in {page.id for page in found} else gr.skip()

        opened = studio.load(choose, outputs=tabs, queue=False, show_progress="hidden", api_visibility="private")
        opened.then(None, js="() => { window.auOpened = true; }")
    return studio


def look() -> dict[str, Any]:
    """How Studio looks, as options of `launch` and `mount_gradio_app` alike."""
    return {"theme": theme(), "css_paths": sorted(ASSETS.glob("*.css"), reverse=True), "js": _REMEMBER}


def theme() -> gr.themes.Base:
    """The house's colours; its fonts come from Gradio's own files, never from the network."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.blue,
        secondary_hue=gr.themes.colors.orange,
        neutral_hue=gr.themes.colors.slate,
        text_size=gr.themes.sizes.text_sm,
        spacing_size=gr.themes.sizes.spacing_sm,
        radius_size=gr.themes.sizes.radius_sm,
        # Gradio's semi-bold file of this font holds a few letters only; the bold one is whole.
        font=(gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif"),
    )


# The first tab tells that it is selected before the one that was asked for is: until then the address stays.
_FOLLOW = """() => {
    const tab = new URLSearchParams(location.search).get('tab');
    if (window.auOpened && tab !== '%(id)s') history.replaceState(null, '', '?tab=%(id)s');
}"""

# A person's choice of light or dark is kept by the browser; without one, the system's is followed.
_REMEMBER = """() => {
    const chosen = localStorage.getItem('auscult-theme');
    if (chosen && !new URLSearchParams(location.search).has('__theme'))
        document.body.classList.toggle('dark', chosen === 'dark');
}"""
