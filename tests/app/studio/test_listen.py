"""The Listen page in process: it builds, its scenes are small and plain, and what goes wrong becomes a sentence."""

import base64
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import torch

from app import workbench
from app.studio import main, widgets
from app.studio.pages import listen
from engine import audio
from engine.errors import Refused
from engine.live import Answer
from engine.run import Context


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The questions to the warm process, answered in this one."""
    questions: list[dict[str, Any]] = []

    def ask(document: dict[str, Any]) -> Answer:
        questions.append(document)
        folder = tmp_path / f"answer{len(questions)}"
        folder.mkdir()
        return Answer(workbench.resolve(document).run(Context(folder, device="cpu")), folder, restarted=True)

    monkeypatch.setattr(workbench, "ask", ask)
    return questions


@pytest.fixture
def clip(tmp_path: Path) -> str:
    """A sound whose name would be markup, were it taken as such."""
    place = tmp_path / "<img src=x onerror=alert(1)> ${1+1} {{x}}.wav"
    audio.save(place, torch.randn(32_000, generator=torch.Generator().manual_seed(0)) * 0.1)
    return str(place)


def test_studio_builds_with_every_page() -> None:
    studio = main.build()
    assert isinstance(studio, gr.Blocks) and "listen" in {page.id for page in main.find_pages()}
    assert main.find_pages()[0].id == "listen"


def test_a_page_that_does_not_import_shows_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torn.py").write_text("raise RuntimeError('torn to pieces')")
    monkeypatch.setattr(main.pages, "__path__", [str(tmp_path)])
    (page,) = main.find_pages()
    with gr.Blocks():
        panel = page.draw()
    assert page.title == "Torn" and "torn to pieces" in panel.value["sentence"]


def test_a_scene_is_small_and_whole(asked: list[dict[str, Any]], clip: str) -> None:
    scene = listen.listen(None, clip, "fbank")
    assert "error" not in scene and asked == [{"run": "listen", "upstream": "fbank", "clip": clip, "seconds": 20.0}]
    assert len(json.dumps(scene, allow_nan=False)) < 400_000
    assert len(base64.b64decode(scene["similarity"])) == scene["cells"] ** 2
    assert len(base64.b64decode(scene["plane"])) == scene["columns"] * 4
    assert all(len(base64.b64decode(shown["cells"])) == scene["columns"] for shown in scene["maps"])
    assert [shown["id"] for shown in scene["maps"]] == ["change", "deviation"]  # one state agrees with nothing below
    assert scene["layers"][0]["short"] == "features" and "restarted" not in scene["facts"] and scene["note"]
    assert base64.b64decode(scene["audio"])[:4] == b"RIFF"


def test_an_address_chooses_the_upstream(asked: list[dict[str, Any]], clip: str) -> None:
    def opened(**query: str) -> Any:
        request: Any = SimpleNamespace(query_params=query)
        listen.first_listen(None, clip, "fbank", request)
        return listen.offer(request)

    assert opened(tab="listen", upstream="mel").value == "mel" and asked[-1]["upstream"] == "mel"
    opened(tab="hub", upstream="mel")
    assert asked[-1]["upstream"] == "fbank"


def test_layers_are_named_by_what_they_are() -> None:
    assert "input of the first block" in listen._layer(0, 13)["long"]
    assert listen._layer(7, 13)["long"] == "layer 7, output of block 7 of 12"


def test_later_requests_have_higher_numbers(asked: list[dict[str, Any]], clip: str) -> None:
    assert listen.listen(None, clip, "fbank")["number"] < listen.listen(None, None, "fbank")["number"]


def test_what_goes_wrong_becomes_a_sentence(monkeypatch: pytest.MonkeyPatch, clip: str) -> None:
    def refuse(document: dict[str, Any]) -> Answer:
        raise Refused("The file is empty. Choose another.")

    monkeypatch.setattr(workbench, "ask", refuse)
    assert listen.listen(None, clip, "fbank")["error"]["sentence"] == "The file is empty. Choose another."

    def break_down(document: dict[str, Any]) -> Answer:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(workbench, "ask", break_down)
    said = listen.listen(None, clip, "fbank")["error"]["sentence"]
    assert "secret" not in said and "log" in said


@pytest.mark.parametrize(
    ("sample", "own", "upstream"), [(None, None, "fbank"), ("../../etc/passwd", None, "fbank"), (None, "x", None)]
)
def test_nothing_chosen_is_said(sample: str | None, own: str | None, upstream: str | None) -> None:
    assert "chosen" in listen.listen(sample, own, upstream)["error"]["sentence"]


def test_umap_only_of_what_was_drawn(asked: list[dict[str, Any]], clip: str) -> None:
    assert "older than the server" in listen.lay_out("anything")["error"]
    assert not asked


def test_templates_hold_nothing_that_gradio_would_run() -> None:
    with gr.Blocks():
        parts = [widgets.stage([]), widgets.header("<svg></svg>"), widgets.refusal("${1+1}", "{{x}}")]
    for part in parts:
        assert not re.search(r"\$\{|\{\{|`", part.html_template)


def test_scripts_write_text_and_never_markup() -> None:
    for file in widgets.STAGE.glob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|\beval\b|new Function|https?://", file.read_text("utf-8")
        )


def test_what_listens_first_needs_no_network() -> None:
    names = {card.name: card for card in workbench.upstreams()}
    assert names[listen.first_choice()].here
    assert all(card.here for card in names.values()) or not names[listen.choices()[-1][1]].here
