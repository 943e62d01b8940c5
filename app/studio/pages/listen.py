"""Listen: one sound, one upstream, every layer."""

import gradio as gr

TITLE = "Listen"
ORDER = 10


def build() -> None:
    """The components of the page and what they do."""
    gr.HTML("")
