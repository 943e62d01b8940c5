"""Listen: one sound, one upstream, every layer, held together by one playhead."""

import base64
import itertools
import json
import logging
from collections import OrderedDict
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from app import workbench
from app.studio import widgets
from engine.errors import AuscultError, Refused
from engine.live import Answer
from engine.settings import HOUSE, settings
from engine.upstream import Card

TITLE = "Listen"
ORDER = 10

CLIPS = HOUSE / "assets" / "clips"
SECONDS = 20.0  # of a sound that are shown; longer ones are cut and the page says so
FAVOURITE = "hubert-small"  # what listens first, where it is there
# Measure -> its name, and what it means in one sentence.
MEASURES = {
    "change": (
        "Change",
        "1 − cosine of a frame to the one before, around the layer's mean: bright where the layer hears news.",
    ),
    "deviation": (
        "Deviation",
        "How far a frame lies from its layer's mean; 1 is usual, bright is unlike the rest of the sound.",
    ),
    "agreement": (
        "Agreement",
        "Correlation of a frame's likes and unlikes with those in the layer below: dark where a block rearranges.",
    ),
}

_HINTS = """
<p>Click or drag anywhere to move the playhead. Space plays; ← → move in time, ↑ ↓ through layers.</p>
<p><b>Self-similarity</b>: orange where two moments are alike to the layer, blue where they are opposite.</p>
<p><b>Projection</b>: one point for each frame; near points sound alike to the layer.</p>
<p>Files up to {megabytes} MB; the first {seconds:g} s are shown. The browser asks before it uses the microphone. Sound is
deleted after a day.</p>
"""

# What the address asked for is chosen now; a reload must not undo what is chosen after it.
_SETTLE = """() => {
    if (new URLSearchParams(location.search).get('tab') === 'listen') history.replaceState(null, '', '?tab=listen');
}"""

log = logging.getLogger("auscult.studio")
_numbers = itertools.count(1)
_asked: OrderedDict[str, dict[str, Any]] = OrderedDict()  # key of a drawn scene -> its document, for UMAP on request


def build() -> None:
    """The components of the page and what they do."""
    clips = samples()
    with gr.Row(elem_classes="au-listen"):
        with gr.Column(scale=0, min_width=256, elem_classes="au-side"):
            sample = gr.Radio(
                [(clip["title"], clip["file"]) for clip in clips],
                value=clips[0]["file"] if clips else None,
                label="Sound",
                visible=bool(clips),
                elem_classes="au-samples",
            )
            own = gr.Audio(
                sources=["upload", "microphone"],
                type="filepath",  # numbers would lose their loudness on the way
                label="Your own",
                editable=False,
                buttons=[],
                elem_classes="au-own",
            )
            upstream = gr.Dropdown(
                choices(),
                value=first_choice(),
                label="Upstream",
                info="Choose, or type hf: and the name of a model",
                allow_custom_value=True,
                elem_classes="au-upstream",
            )
            gr.HTML(_HINTS.format(megabytes=settings().upload_megabytes, seconds=SECONDS), elem_classes="au-hint")
        stage = widgets.stage([lay_out])
    wiring: dict[str, Any] = {
        "fn": listen,
        "inputs": [sample, own, upstream],
        "outputs": stage,
        "concurrency_id": "engine",
        "trigger_mode": "always_last",
        "show_progress": "hidden",
        "api_visibility": "private",
    }
    widgets.on_open(**{**wiring, "fn": first_listen}).then(None, js=_SETTLE)
    widgets.on_open(fn=offer, outputs=upstream, queue=False, show_progress="hidden", api_visibility="private")
    upstream.input(**wiring, js=widgets.busy(3))
    # A sample and a sound of one's own take turns: choosing one lets the other go.
    sample.input(None, None, own, js="() => null").then(**wiring, js=widgets.busy(3))
    gr.on([own.upload, own.stop_recording], None, None, sample, js="() => null").then(**wiring, js=widgets.busy(3))
    own.clear(lambda: clips[0]["file"] if clips else None, None, sample, queue=False, api_visibility="private").then(
        **wiring, js=widgets.busy(3)
    )


def samples() -> list[dict[str, Any]]:
    """The bundled clips: file, title and what is known of their times."""
    try:
        known: list[dict[str, Any]] = json.loads((CLIPS / "clips.json").read_text("utf-8"))
    except (OSError, ValueError):
        return []
    return [clip for clip in known if (CLIPS / clip["file"]).exists()]


def choices() -> list[tuple[str, str]]:
    """What a person reads and the name, of every upstream known ahead; what needs no network first."""
    cards = sorted(workbench.upstreams(), key=lambda card: (not card.here, card.layers == 0))
    return [(f"{card.name} · {_depth(card)}{'' if card.here else ' · to be fetched'}", card.name) for card in cards]


def first_choice() -> str:
    """The upstream that listens when the page opens: a trained one where there is one that needs no network."""
    here = [card for card in workbench.upstreams() if card.here]
    ranked = sorted(here, key=lambda card: (card.name != FAVOURITE, card.layers == 0, card.name != "fbank"))
    return ranked[0].name if ranked else ""


def offer(request: gr.Request) -> Any:
    """What can be chosen now: what was trained or fetched since the server started too. An address may choose."""
    asked = _asked_for(request)
    return gr.Dropdown(choices(), value=asked) if asked else gr.Dropdown(choices())


def first_listen(sample: str | None, own: str | None, upstream: str | None, request: gr.Request) -> dict[str, Any]:
    """The scene that a browser opens with: by the upstream that its address names, else by the one that is chosen."""
    return listen(sample, own, _asked_for(request) or upstream)


def _asked_for(request: gr.Request) -> str:
    asked = request.query_params
    return str(asked.get("upstream", "")) if asked.get("tab") == "listen" else ""


def _depth(card: Card) -> str:
    return f"{card.layers} layers" if card.layers else "features"


def listen(sample: str | None, own: str | None, upstream: str | None) -> dict[str, Any]:
    """The scene for what is chosen, or one that says why there is none. Later requests have higher numbers."""
    number = next(_numbers)
    try:
        if not upstream:
            raise Refused("No upstream is chosen. Choose one on the left.")
        file, title = _chosen(sample, own)
        document = {"run": "listen", "upstream": upstream, "clip": str(file), "seconds": SECONDS}
        answer = workbench.ask(document)
        drawn = scene(answer, title)
    except AuscultError as error:
        return {"number": number, "error": {"title": "This cannot be listened to", "sentence": str(error)}}
    except Exception:
        log.exception("Listen could not draw %s with %s", own or sample, upstream)
        sentence = "Something unexpected went wrong; the server's log says what. Choose another sound or upstream."
        return {"number": number, "error": {"title": "This did not work", "sentence": sentence}}
    key = answer.folder.name
    _asked[key] = document
    while len(_asked) > 200:
        _asked.popitem(last=False)
    return {"number": number, "key": key, **drawn}


def lay_out(key: str) -> dict[str, str]:
    """The UMAP coordinates of a scene that was drawn, or the reason why there are none. Called by the stage."""
    try:
        if key not in _asked:
            raise Refused("This view is older than the server. Choose the sound once more.")
        answer = workbench.ask({**_asked[key], "projection": "umap"})
        with np.load(answer.folder / "artifacts" / "listen.npz", allow_pickle=False) as arrays:
            return {"plane": packed(arrays["plane"])}
    except AuscultError as error:
        return {"error": str(error)}
    except Exception:
        log.exception("Listen could not lay out %s", key)
        return {"error": "UMAP could not be laid out; the server's log says why."}


def _chosen(sample: str | None, own: str | None) -> tuple[Path, str]:
    if own:
        return Path(own), Path(own).name
    known = {clip["file"]: clip for clip in samples()}
    if sample is None or sample not in known:
        raise Refused("No sound is chosen. Choose one on the left, upload a file or record one.")
    return CLIPS / sample, known[sample]["title"]


def scene(answer: Answer, title: str) -> dict[str, Any]:
    """An answer of `listen` as the stage takes it: numbers as base64 bytes, everything that is said as plain text."""
    facts = answer.result.facts
    artifacts = answer.folder / "artifacts"
    with np.load(artifacts / "listen.npz", allow_pickle=False) as arrays:
        got = {name: arrays[name] for name in arrays.files}
    count, columns = got["maps"].shape[1:]
    maps = [
        {
            "id": name,
            "title": MEASURES[name][0],
            "about": MEASURES[name][1],
            "cells": packed(cells),
            "low": low,
            "high": high,
        }
        for name, cells, (low, high) in zip(facts["measures"], got["maps"], got["limits"].tolist(), strict=True)
        if cells.any()  # agreement needs a layer below
    ]
    rows, mel_columns = got["mel"].shape
    return {
        "clip": title,
        "upstream": facts["upstream"]["name"],
        "seconds": facts["sound"]["seconds"],
        "audio": base64.b64encode((artifacts / "sound.wav").read_bytes()).decode(),
        "peaks": packed(got["peaks"]),
        "mel": {"rows": rows, "columns": mel_columns, "cells": packed(got["mel"]), "low": -80},
        "frames": facts["frames"],
        "hop": facts["hop_seconds"],
        "columns": columns,
        "columnFrames": facts["column_frames"],
        "cells": got["similarity"].shape[1],
        "cellFrames": facts["cell_frames"],
        "layers": [_layer(place, count) for place in range(count)],
        "maps": maps,
        "similarity": packed(got["similarity"]),
        "plane": packed(got["plane"]),
        "shares": [None if np.isnan(share) else float(share) for share in got["shares"]],
        "tiers": {tier: facts["tiers"][tier] for tier in ("word", "phone") if facts["tiers"].get(tier)},
        "said": _said(facts["sound"]),
        "facts": _facts(facts, answer.result.table),
        "note": "The engine had stopped and was started again for this." if answer.restarted else "",
    }


def packed(array: np.ndarray[Any, Any]) -> str:
    """The bytes of an array, as text."""
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()).decode()


def _layer(place: int, count: int) -> dict[str, str]:
    if count == 1:
        return {"short": "features", "long": "the features", "about": "the features themselves; there are no blocks"}
    if place == 0:
        return {"short": "layer 0", "long": "layer 0, the input of the first block", "about": "input of the first block"}
    about = f"output of block {place} of {count - 1}"
    return {"short": f"layer {place}", "long": f"layer {place}, {about}", "about": about}


def _said(sound: dict[str, Any]) -> str:
    changes = " ".join(sound["changes"]) or "Nothing was changed."
    return f"Sound: {sound['seconds']:.2f} s, mono, 16,000 Hz. {changes}"


def _facts(facts: dict[str, Any], table: list[dict[str, Any]]) -> str:
    card = facts["upstream"]
    dims = sorted({row["dim"] for row in table})
    wide = f"{dims[0]:,}" if len(dims) == 1 else f"{dims[0]:,} to {dims[-1]:,}"
    said = [
        f"Upstream: {card['name']}",
        f"revision {card['revision'][:12]}" if card["revision"] else "",
        f"{len(table)} state{'s' * (len(table) > 1)} of {wide} numbers",
        f"{facts['frames']:,} frames, one every {facts['hop_seconds'] * 1000:g} ms",
        f"computed in {facts['seconds']:.2f} s" if "seconds" in facts else "",
        f"of which the upstream {facts['upstream_seconds']:.2f} s",
    ]
    return " · ".join(part for part in said if part)
