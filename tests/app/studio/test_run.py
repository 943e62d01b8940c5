"""Studio / Run, asked as a browser would ask it."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import yaml

from app import forms, workbench
from app.studio.pages import run
from engine.job import JobStore

EXTENSION = '''
from typing import Literal

from pydantic import Field

from engine.run import Context, Result, RunSpec


class Toy(RunSpec):
    """Counts <quickly>.

    More about it.
    """

    family = "analysis"

    count: int = Field(3, ge=1, le=500_000, description="How far.", json_schema_extra={"unit": "steps"})
    how: Literal["up", "down"] = Field("up", description="Which way.")
    floor: float = Field(0.0, description="Where to stop.", json_schema_extra={"when": {"how": "down"}})
    layers: list[int] = Field([], description="Which.", json_schema_extra={"advanced": True})

    def needs(self) -> list[str]:
        return ["It counts to 13 only on Fridays."] if self.count == 13 else []

    def run(self, ctx: Context) -> Result:
        return Result([])
'''


@pytest.fixture(autouse=True)
def toy(workspace: Path) -> Path:
    """An extension of the user's own."""
    folder = workspace / "extensions" / "analyses"
    folder.mkdir(parents=True)
    (folder / "toy.py").write_text(EXTENSION)
    return folder


def opened(kept: Any = None, **query: str) -> tuple[dict[str, Any], Any, Any, dict[str, Any]]:
    """What a browser with this address and this memory sees first."""
    request: Any = SimpleNamespace(query_params={"tab": "run", **query})
    return run._open(kept, request)  # type: ignore[return-value]


def answer(kind: Any, act: Any, *after: Any, **values: Any) -> dict[str, Any]:
    """What the page shows after a field was changed, or after its button was pressed."""
    form = forms.fields(kind)
    given = [values.get(one.name, forms.widget_value(one, one.default)) for one in form]
    out = act(kind, form, *given, *after)
    columns, errors = out[: len(form)], out[len(form) : 2 * len(form)]
    names = [one.name for one in form]
    return {
        "shown": {name for name, column in zip(names, columns, strict=True) if column.visible},
        "errors": {name: error.value for name, error in zip(names, errors, strict=True) if error.visible},
        "notice": out[-4],
        "command": out[-3],
        "yaml": out[-2],
        "kept": out[-1],
    }


def edited(act: Any = run._edit, **values: Any) -> dict[str, Any]:
    return answer(workbench.runs()["toy"], act, {"run": "toy", "values": {}}, **values)


def added(priority: Any = 0, **values: Any) -> dict[str, Any]:
    return answer(workbench.runs()["toy"], run._add, {"run": "toy", "values": {}}, priority, **values)


def test_dropped_file_is_offered_at_the_next_opening(toy: Path) -> None:
    def titles() -> list[str]:
        return [item["title"] for family in opened()[1]["families"] for item in family["runs"]]

    assert "Toy" in titles()
    (toy / "second.py").write_text(EXTENSION)
    assert "Second" in titles()
    (toy / "second.py").unlink()
    assert "Second" not in titles()


def test_broken_file_is_listed_with_its_error(toy: Path) -> None:
    assert opened()[2].visible is False
    (toy / "broken.py").write_text("raise ValueError('<oh>')")
    shown = opened()[2]
    assert shown.visible
    assert "broken.py" in shown.value
    assert "ValueError: &lt;oh&gt;" in shown.value


@pytest.mark.parametrize("name", sorted(workbench.runs()))
def test_every_run_draws_its_form(name: str) -> None:
    with gr.Blocks() as blocks:
        kept, drawn = gr.BrowserState(run.EMPTY), gr.State({})
        run._draw(kept, drawn, {"run": name, "values": {}, "said": "", "turn": 0})
    buttons = [block for block in blocks.blocks.values() if isinstance(block, gr.Button) and block.visible]
    assert len(buttons) == (3 if workbench.runs()[name].family == "pretext" else 2)
    labels = [getattr(block, "label", None) or "" for block in blocks.blocks.values()]
    for one in forms.fields(workbench.runs()[name]):
        assert any(label.startswith(one.label) for label in labels)


def test_field_of_a_condition_is_shown_with_it() -> None:
    assert "floor" not in edited()["shown"]
    assert "floor" in edited(how="down")["shown"]
    # What is hidden is not part of the run.
    assert "floor" not in edited(how="up", floor=3.0)["command"]


def test_error_is_said_at_its_field() -> None:
    page = edited(count=0, layers="1, two")
    assert set(page["errors"]) == {"count", "layers"}
    assert "greater than or equal to 1" in page["errors"]["count"]
    assert "Count, Layers" in page["notice"]
    # A choice that the page never offered is judged by the class, not trusted.
    assert set(edited(how="../../etc")["errors"]) == {"how"}


def test_command_and_file_follow_the_form() -> None:
    page = edited(count=7.0, layers="0, 2")
    assert page["command"] == "python launch.py run toy count=7 'layers=[0, 2]'"
    assert "count: 7" in page["yaml"]
    assert page["kept"]["values"]["toy"]["layers"] == "0, 2"


def test_reason_is_told_and_nothing_is_queued() -> None:
    assert "only on Fridays" in edited(count=13)["notice"]
    assert "only on Fridays" in added(count=13)["notice"]
    assert not list(JobStore())


def test_wrong_form_is_not_queued() -> None:
    assert set(added(count=0)["errors"]) == {"count"}
    assert not list(JobStore())


def test_form_goes_into_the_queue() -> None:
    page = added(5, count=9, how="down", floor=1)
    (job,) = JobStore()
    assert job.document == {"run": "toy", "seed": 0, "count": 9, "how": "down", "floor": 1.0, "layers": []}
    assert job.status().priority == 5
    assert job.id in page["notice"]
    assert f"/studio/?tab=jobs&amp;job={job.id}" in page["notice"]


def test_a_training_is_tried_first_as_a_job_of_its_own(workspace: Path) -> None:
    kind = workbench.runs()["mockingjay"]
    page = answer(kind, run._attempt, {"run": "mockingjay", "values": {}}, 0, width=64, heads=4)
    (job,) = JobStore()
    tried = yaml.safe_load(job.document["training"])
    assert job.document["run"] == "preflight" and (tried["run"], tried["width"], tried["heads"]) == ("mockingjay", 64, 4)
    assert job.id in page["notice"] and "being tried" in page["notice"]
    wrong = answer(kind, run._attempt, {"run": "mockingjay", "values": {}}, 0, width=64, heads=5)
    assert "not a multiple" in str(wrong) and len(list(JobStore())) == 1


def test_settings_of_a_job_and_of_a_recipe_come_back(workspace: Path) -> None:
    job = JobStore().submit({"run": "toy", "count": 42, "layers": [1]})
    state = opened(**{"from": job.id})[0]
    assert (state["run"], state["values"]) == ("toy", {"count": 42, "layers": [1]})
    assert job.id in state["said"]
    (workspace / "recipes").mkdir()
    (workspace / "recipes" / "far.yaml").write_text("run: toy\nabout: far\ncount: 400\n")
    state = opened(recipe="far")[0]
    assert (state["run"], state["values"]) == ("toy", {"count": 400})


def test_an_address_fills_in_the_upstream_and_leaves_the_rest() -> None:
    kept = {"run": "", "values": {"toy": {"count": 42, "upstream": "mel"}}}
    state, _, _, memory = opened(kept, run="toy", upstream="fbank")
    assert (state["run"], state["values"]) == ("toy", {"count": 42, "upstream": "fbank"})
    assert memory["values"]["toy"] == state["values"]
    assert opened({"run": "", "values": {"toy": "x"}}, run="toy", upstream="mel")[0]["values"] == {"upstream": "mel"}


@pytest.mark.parametrize("query", [{"from": "../../etc"}, {"recipe": "none"}, {"run": "none"}, {"from": ""}])
def test_address_that_asks_for_nothing_known(query: dict[str, str]) -> None:
    state = opened(**query)[0]
    assert state["run"] in workbench.runs()
    assert re.search("not there any more|no recipe|no run called", state["said"])


def test_browser_remembers_what_was_written() -> None:
    kept = {"run": "toy", "values": {"toy": {"count": 77}}}
    assert opened(kept)[0]["values"] == {"count": 77}
    for damaged in (None, "x", [], {"run": 3}, {"run": "gone", "values": []}, {"run": "toy", "values": {"toy": "x"}}):
        assert opened(damaged)[0]["run"] in workbench.runs()


def test_labels_are_offered_anew_when_the_corpus_changes() -> None:
    kind = workbench.runs()["linear_probe"]
    form = forms.fields(kind)
    place = 2 * len(form)  # after the columns and the errors

    def offered(corpus: str, before: str) -> Any:
        values = {one.name: forms.widget_value(one, one.default) for one in form} | {"corpus": corpus}
        kept = {"run": kind.name, "values": {kind.name: {**values, "corpus": before}}}
        return run._edit(kind, form, *values.values(), kept)[place]

    changed = offered("spoken:commands", "spoken:digits")
    assert ("command · 20 values", "command") in changed.choices
    assert "choices" not in offered("spoken:commands", "spoken:commands")


def test_preset_fills_the_form_and_defaults_empty_it(workspace: Path) -> None:
    (workspace / "recipes").mkdir()
    (workspace / "recipes" / "far.yaml").write_text("run: toy\ncount: 400\n")
    kind = workbench.runs()["toy"]
    presets = {recipe.name: recipe for recipe in forms.presets(kind)}
    state, kept = run._fill(kind, presets, "far", None)
    assert state["values"] == {"count": 400}
    assert kept["values"]["toy"] == {"count": 400}
    state, kept = run._fill(kind, presets, None, kept)
    assert state["values"] == {}
    assert kept["values"]["toy"] == {}
