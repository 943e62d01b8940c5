"""Studio / Hub in process: what is told of a model, and what each act does or says."""

import json
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import tiny

from app import workbench
from app.studio.pages import hub
from engine.errors import Refused
from engine.hub import Entry
from engine.job import Job, JobStore
from engine.live import Answer
from engine.run import Context
from engine.settings import settings

NAME = "hf:facebook/hubert-base-ls960"


def told(name: str) -> dict[str, Any]:
    (found,) = [model for model in hub.show_models("")["models"] if model["name"] == name]
    return dict(found)


@pytest.fixture
def answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions to the warm process, answered in this one."""

    def ask(document: dict[str, Any]) -> Answer:
        folder = tmp_path / f"answer{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        return Answer(workbench.resolve(document).run(Context(folder, device="cpu")), folder, restarted=False)

    monkeypatch.setattr(workbench, "ask", ask)


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUSCULT_OFFLINE", "0")
    settings.cache_clear()


def test_every_model_is_told_once_and_in_few_bytes() -> None:
    page = hub.show_models("")
    names = [model["name"] for model in page["models"]]
    assert {"fbank", "hubert-small", NAME} <= set(names) and len(set(names)) == len(names)
    assert len(json.dumps(page, allow_nan=False)) < 2_500 * len(names)
    assert page["transfers"] == [] and "AUSCULT_OFFLINE" in page["offline"]


def test_with_the_network_nothing_is_said_of_it(online: None) -> None:
    assert hub.show_models("")["offline"] == ""


def fetching(*events: tuple[str, dict[str, Any]]) -> Job:
    job = JobStore().submit({"run": "fetch", "upstream": NAME})
    for kind, values in events:
        job.events.append(kind, **values)
    return job


def test_a_download_is_told_in_bytes() -> None:
    job = fetching(("started", {"pid": 1}), ("progress", {"done": 1e8, "total": 4e8, "stage": "bytes"}))
    job.alive_file.touch()
    job.events.append("progress", done=2e8, total=4e8, stage="bytes")
    (moving,) = hub.show_transfers("")["transfers"]
    assert (moving["name"], moving["job"], moving["state"], moving["share"]) == (NAME, job.id, "running", 0.5)
    assert moving["said"].startswith("200 MB of 400 MB · ") and "/s" in moving["said"] and moving["said"].endswith(" left")
    assert moving["stoppable"]
    hub.stop_fetching(NAME)
    assert job.cancel_file.exists() and not hub.show_transfers("")["transfers"][0]["stoppable"]


def test_only_the_newest_download_of_a_model_counts() -> None:
    fetching(("started", {"pid": 1}), ("failed", {"reason": "The download broke off."}))
    newer = JobStore().submit({"run": "fetch", "upstream": NAME}, id="9-newer")
    JobStore().submit({"run": "linear_probe", "upstream": NAME}, id="99-other")
    assert [one["job"] for one in hub.transfers()] == [newer.id]


def test_fetching_makes_one_job_and_goes_on_with_one_that_broke_off(online: None) -> None:
    (moving,) = hub.fetch_model(NAME)["transfers"]
    assert moving["state"] == "queued"
    (job,) = JobStore()
    assert (job.document["run"], job.document["upstream"]) == ("fetch", NAME)
    hub.fetch_model(NAME)  # pressed twice
    assert len(list(JobStore())) == 1
    hub.stop_fetching(NAME)
    assert hub.transfers()[0]["state"] == "cancelled"
    hub.fetch_model(NAME)
    assert len(list(JobStore())) == 1 and hub.transfers()[0]["state"] == "queued"


def test_what_cannot_be_fetched_gets_a_sentence() -> None:
    said = hub.fetch_model("hf:<b>nobody</b>")["said"]
    assert said["kind"] == "bad" and "hf:<b>nobody</b>" in said["sentence"] or "<b>nobody</b>" in said["sentence"]
    assert list(JobStore()) == []


def test_a_checkpoint_is_added_checked_and_forgotten(answered: None, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    tiny.checkpoint(folder, "hubert")
    page = hub.add_checkpoint(str(folder))
    name = page["chosen"]
    assert name == f"hf:{folder}" and page["report"]["name"] == name
    report = dict(page["report"]["facts"])
    assert report["Layers"] == "2 blocks" and report["Widths of the states"] == "16" and int(report["Tensors taken"]) > 20
    assert page["said"]["title"] == "Recognised: HuBERT"
    mine = told(name)
    assert (mine["mark"], mine["title"], mine["own"], mine["readable"]) == ("own", "mine", True, True)
    page = hub.forget_checkpoint(name)
    assert name not in [model["name"] for model in page["models"]] and "stay" in page["said"]["sentence"]
    assert (folder / "config.json").exists()


def test_heads_of_a_checkpoint_are_named_as_left_out(answered: None, tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path, "wav2vec2-pretraining")
    left = dict(hub.read_weights(f"hf:{tmp_path}")["report"]["facts"])["Left out"]
    assert left[0].isdigit() and "project_hid" in left and left.endswith("...")


def test_a_picture_is_refused_in_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    file.write_bytes(b"\x89PNG\r\n" + bytes(600))
    page = hub.add_checkpoint(str(file))
    assert set(page) == {"said"} and "is a PNG picture" in page["said"]["sentence"]


def test_weights_that_do_not_fit_are_said_beside_the_model(answered: None, tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path, "hubert")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    page = hub.add_checkpoint(str(tmp_path))
    assert page["chosen"] and "report" not in page
    assert page["said"]["kind"] == "bad" and "are missing" in page["said"]["sentence"]


def test_deleting_says_what_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbench, "delete_download", lambda name: 378_000_000)
    assert hub.delete_model(NAME)["said"]["title"] == "378 MB freed"

    def refuse(name: str) -> int:
        raise Refused("There is nothing of it here.")

    monkeypatch.setattr(workbench, "delete_download", refuse)
    assert hub.delete_model(NAME) == {
        "said": {"kind": "bad", "title": "It was not deleted", "sentence": "There is nothing of it here."}
    }


def test_what_nobody_expected_is_a_sentence_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def tear() -> list[Entry]:
        raise RuntimeError("torn")

    monkeypatch.setattr(workbench, "models", tear)
    said = hub.show_models("")["said"]
    assert "log" in said["sentence"] and "torn" not in said["sentence"]


def test_page_is_built() -> None:
    with gr.Blocks() as blocks:
        hub.build()
    (part,) = [block for block in blocks.blocks.values() if isinstance(block, gr.HTML)]
    assert not blocks.fns, "The page asks for itself; nothing runs before its tab is opened."
    template = part.html_template
    assert "${" not in template and "{{" not in template
    script = part.js_on_load or ""
    assert "innerHTML" not in script
    for name in ("show_models", "show_transfers", "fetch_model", "stop_fetching", "delete_model", "add_checkpoint"):
        assert f"'{name}'" in script and callable(getattr(part, name))
