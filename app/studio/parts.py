"""The parts of the Hub, Run and Jobs pages that Gradio does not have: fixed templates, and scripts beside this file.

What a user or a run wrote goes through `value` and is put into the page as text by the script, never as HTML.
"""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import Context

SCRIPTS = Path(__file__).parent / "scripts"


def memory(key: str, empty: Any) -> gr.BrowserState:
    """What a browser remembers of a page. It stands outside of every tab: what is inside is there only while it is shown."""
    inside, Context.block = Context.block, Context.root_block
    try:
        # The secret hides nothing: it is fixed so that the browser's memory outlives a restart of the server.
        return gr.BrowserState(empty, storage_key=key, secret="auscult")
    finally:
        Context.block = inside


def menu() -> gr.HTML:
    """Everything that can be started, by family; `pick` tells which was chosen."""
    return _part("menu", '<nav class="au-menu" aria-label="What to run"></nav>', {"families": [], "chosen": ""})


def jobs() -> gr.HTML:
    """The table of jobs; `pick` tells which was chosen."""
    heads = ("Job", "State", "Progress", "Time left", "Metric", "Added")
    template = (
        '<div class="au-jobs-table" tabindex="-1"><table hidden><thead><tr>'
        + "".join(f"<th>{head}</th>" for head in heads)
        + '</tr></thead><tbody></tbody></table><div class="au-jobs-empty" hidden><h3>No job yet</h3>'
        "<p>A job is a run that waits, works or has ended. Start one from a form, then watch it here.</p>"
        '<a class="au-button" href="/studio/?tab=run">Start a run</a></div></div><p class="au-jobs-note"></p>'
    )
    return _part("jobs", template, {"rows": [], "chosen": "", "ready": False}, elem_id="jobs-table")


def curves() -> gr.HTML:
    """The metrics of a job, drawn on as they come; `missed` tells that a piece did not arrive."""
    template = (
        '<div class="au-curves-bar" hidden><span>Drag to zoom, double-click for all</span>'
        '<label class="au-curves-log"><input type="checkbox"> Log scale</label></div>'
        '<p class="au-curves-empty" hidden></p><div class="au-curves"></div>'
    )
    return _part("curves", template, None, elem_id="jobs-curves")


def log() -> gr.HTML:
    """The end of a job's log."""
    return _part("log", '<pre class="au-log" tabindex="0" aria-label="Log"></pre>', None, elem_id="jobs-log")


def hub(server_functions: Sequence[Callable[[str], Any]]) -> gr.HTML:
    """The list of models and the one that is looked at; its script asks the functions by name."""
    template = (SCRIPTS / "hub" / "hub.html").read_text("utf-8")
    return _part("hub/list hub/model hub/hub", template, {}, server_functions=list(server_functions), elem_id="hub")


def _part(scripts: str, template: str, value: Any, **place: Any) -> gr.HTML:
    text = "\n".join((SCRIPTS / f"{script}.js").read_text("utf-8") for script in scripts.split())
    return gr.HTML(value, html_template=template, js_on_load=text, apply_default_css=False, **place)


def notice(kind: str, title: str, sentences: list[str], link: tuple[str, str] | None = None) -> str:
    """A framed message: kind is good, bad, wait or plain; the link is (address, text)."""
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    go = f'<a class="au-go" href="{escape(link[0])}">{escape(link[1])}</a>' if link else ""
    role = "alert" if kind == "bad" else "status"
    return f'<div class="au-notice au-{kind}" role="{role}"><h4>{escape(title)}</h4>{said}{go}</div>'
