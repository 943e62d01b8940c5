"""A form says what its class says, and what is written into it comes back the same from a command line and a file."""

import shlex
from dataclasses import replace
from enum import Enum
from typing import Any, Literal

import pytest
import yaml
from pydantic import Field

from app import forms, workbench, writing
from app.cli import _values
from engine.errors import Refused
from engine.run import Context, Result, RunSpec


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Everything(RunSpec):
    """One field of every kind."""

    needed: str = Field(description="Has no default.")
    text: str = "word"
    number: float = Field(0.001, gt=0, lt=1, description="Open at both ends.", json_schema_extra={"unit": "s"})
    count: int = Field(20, ge=0, le=100_000)
    slide: int = Field(3, ge=1, le=10)
    above: int = Field(1, gt=0)
    flag: bool = False
    mode: Literal["all", "one", "yes"] = "all"
    colour: Colour = Colour.RED
    layer: int = Field(0, ge=0, json_schema_extra={"when": {"mode": "one"}})
    depth: int = Field(0, ge=0, json_schema_extra={"when": {"layer": [1, 2]}})
    maybe: int | None = Field(None, ge=1)
    layers: list[int] = []
    rates: tuple[float, ...] = (0.5,)
    words: list[str] = []
    several: list[Literal["a", "b"]] = ["a"]
    upstream: str = Field("fbank", json_schema_extra={"choices": "upstreams"})
    others: list[str] = Field([], json_schema_extra={"choices": "upstreams"})
    rare: float = Field(1.0, json_schema_extra={"advanced": True})

    def run(self, ctx: Context) -> Result:
        return Result([])


Everything.name = "everything"


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {**workbench.runs(), "everything": Everything}
    monkeypatch.setattr(workbench, "runs", lambda: found)


def field(name: str) -> forms.Field:
    return {one.name: one for one in forms.fields(Everything)}[name]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("needed", "text"),
        ("number", "number"),
        ("count", "integer"),
        ("slide", "slider"),
        ("flag", "switch"),
        ("mode", "choice"),
        ("colour", "choice"),
        ("maybe", "integer"),
        ("layers", "list"),
        ("rates", "list"),
        ("several", "choices"),
        ("upstream", "choice"),
        ("others", "choices"),
        ("seed", "integer"),
    ],
)
def test_type_picks_the_widget(name: str, kind: str) -> None:
    assert field(name).kind == kind


def test_field_carries_what_the_class_says() -> None:
    assert field("number").help == "Open at both ends."
    assert field("number").unit == "s"
    assert field("number").limits == "more than 0, less than 1"
    assert field("above").limits == "1 or more"
    assert field("count").limits == "0 to 100,000"
    assert field("colour").default == "red"
    assert field("colour").choices == ("red", "blue")
    assert field("needed").required
    assert field("maybe").optional
    assert field("rare").advanced
    assert not field("text").advanced
    assert [one.name for one in forms.fields(Everything)][-2:] == ["rare", "seed"]


def test_upstreams_are_offered() -> None:
    found = forms.choices(field("upstream"), {})
    assert found["fbank"] == "fbank"
    away = "hf:facebook/hubert-base-ls960"
    assert found[away] == f"{away} · 377 MB to fetch"
    assert list(found).index("hubert-small") < list(found).index(away)  # what is here comes first
    assert found["author:decoar"] == "author:decoar · to fetch"
    assert forms.choices(field("mode"), {}) == {"all": "all", "one": "one", "yes": "yes"}


def test_labels_follow_the_corpus_and_the_unit() -> None:
    probe = workbench.runs()["linear_probe"]
    label = {one.name: one for one in forms.fields(probe)}["label"]
    values = {"corpus": "spoken:digits", "unit": "word"}
    found = forms.choices(label, values)
    assert found["phone"] == "phone · timed" and found["digit"] == "digit · 10 values"
    assert "phone" not in forms.choices(label, {**values, "unit": "utterance"})
    assert "digit" not in forms.choices(label, {**values, "corpus": "spoken:commands"})
    assert forms.choices(label, {"corpus": "folder:/no/such"}) == {}
    numbers = forms.choices(replace(label, numbers=True), values)
    assert "loudness" in numbers and "loudness" not in forms.choices(replace(label, numbers=False), values)


@pytest.mark.parametrize("annotation", [dict[str, int], set[str], int | str, list[list[int]], tuple[int, str], list, bytes])
def test_type_without_a_widget_is_an_error(annotation: Any) -> None:
    def run(self: RunSpec, ctx: Context) -> Result:
        return Result([])

    kind = type("Odd", (RunSpec,), {"__annotations__": {"odd": annotation}, "__module__": "odd", "odd": None, "run": run})
    with pytest.raises(Refused, match="'odd'.*no form field"):
        forms.fields(kind)


def test_hidden_fields_are_dropped() -> None:
    values = {"needed": "x", "mode": "all", "layer": 4, "depth": 2}
    assert "layer" not in forms.document(Everything, values)
    assert forms.document(Everything, {**values, "mode": "one"})["layer"] == 4
    # What depends on a hidden field is hidden with it.
    assert "depth" not in forms.document(Everything, {**values, "layer": 1})
    assert forms.document(Everything, {**values, "mode": "one", "layer": 1})["depth"] == 2


def test_empty_means_the_default() -> None:
    assert forms.document(Everything, {"needed": "x", "text": " ", "number": None, "layers": "", "maybe": ""}) == {
        "run": "everything",
        "needed": "x",
    }


def test_widgets_are_read() -> None:
    values = {"needed": "x", "layers": "0, 3,6", "rates": "0.1, 2", "words": '["a, b", "c"]', "slide": 4.0, "maybe": "7"}
    made = forms.document(Everything, values)
    assert made["layers"] == [0, 3, 6]
    assert made["rates"] == [0.1, 2.0]
    assert made["words"] == ["a, b", "c"]
    assert made["slide"] == 4
    assert isinstance(made["slide"], int)
    assert made["maybe"] == 7


def test_errors_stand_at_their_field() -> None:
    assert forms.errors(Everything, {"needed": "x"}) == {}
    said = forms.errors(Everything, {"count": -1, "number": 1.0, "layers": "0, b", "maybe": "many", "slide": 2.5})
    assert set(said) == {"needed", "count", "number", "layers", "maybe", "slide"}
    assert said["needed"] == "This has no default: fill it in."
    assert said["count"] == "This should be greater than or equal to 0."
    # What is hidden is not wrong.
    assert forms.errors(Everything, {"needed": "x", "mode": "all", "layer": -3}) == {}


def test_command_says_only_what_differs() -> None:
    document = forms.full(Everything, {"needed": "two words", "count": 20, "layers": "0, 3"})
    assert writing.command(document) == "python launch.py run everything 'needed=two words' 'layers=[0, 3]'"


def test_one_word_is_a_list_of_it() -> None:
    document = {"run": "linear_probe", "upstreams": "fbank", "layers": 6, "label": "phone"}
    spec = workbench.resolve(document)
    assert (spec.document["upstreams"], spec.document["layers"], spec.document["label"]) == (["fbank"], [6], "phone")
    assert writing.command(spec.document) == "python launch.py run linear_probe upstreams=fbank 'layers=[6]'"
    two = workbench.resolve({**document, "upstreams": ["fbank", "random:hubert-small"], "layers": []}).document
    assert writing.command(two) == "python launch.py run linear_probe 'upstreams=[fbank, random:hubert-small]'"


VALUES: list[dict[str, Any]] = [
    {},
    {"text": "yes"},
    {"text": "1e5"},
    {"text": "null"},
    {"text": "a: b # c"},
    {"text": 'it\'s "quoted" $HOME `x`'},
    {"text": "[not a list"},
    {"text": "ünï"},
    {"number": 1e-5},
    {"number": 0.25},
    {"flag": True},
    {"mode": "yes"},
    {"colour": "blue"},
    {"mode": "one", "layer": 2, "depth": 3},
    {"maybe": 5},
    {"layers": "1, 2, 3"},
    {"rates": "1e-7, 3"},
    {"words": '["a, b", "no", "3", ""]'},
    {"words": '["yes"]'},
    {"words": '["3", "x"]'},
    {"words": '["-"]'},
    {"layers": "6"},
    {"others": ["fbank"]},
    {"others": ["hf:facebook/hubert-base-ls960", "random:hubert-small"]},
    {"several": ["b", "a"]},
    {"several": []},
    {"others": ["hf:some/model", "mfcc"]},
    {"seed": 7, "rare": -2.5},
]


@pytest.mark.parametrize("values", VALUES, ids=str)
def test_everything_comes_back(values: dict[str, Any]) -> None:
    comes_back(Everything, {"needed": "x", **values})


@pytest.mark.parametrize("name", sorted(workbench.runs()))
def test_every_run_has_a_form_that_comes_back(name: str) -> None:
    kind = workbench.runs()[name]
    form = forms.fields(kind)
    required = {one.name: "x" for one in form if one.required}
    comes_back(kind, required)
    for one in form:
        assert one.help, f"{name}.{one.name} has no help"
        for value in others(one):
            values = {**required, **{other: first(wanted) for other, wanted in one.when.items()}, one.name: value}
            if not forms.errors(kind, values):
                comes_back(kind, values)


def first(wanted: Any) -> Any:
    return wanted[0] if isinstance(wanted, (list, tuple)) else wanted


def others(one: forms.Field) -> list[Any]:
    """Values that a person might write into a field."""
    if one.kind == "switch":
        return [True, False]
    if one.kind == "choice" and one.choices:
        return list(one.choices)
    if one.kind == "choices":
        return [list(one.choices) or ["fbank", "mfcc"], []]
    if one.kind == "list":
        return ["1, 2", "a, b"]
    if one.kind in {"number", "integer", "slider"}:
        return [value for value in (one.low, one.high, 2, 0.3, 1e-5) if value is not None]
    return ["some:other?name=1&b=2", "with space"]


def comes_back(kind: type[RunSpec], values: dict[str, Any]) -> None:
    """Form -> document -> command line and file -> the same document."""
    assert forms.errors(kind, values) == {}
    document = forms.full(kind, values)
    words = shlex.split(writing.command(document))
    assert words[:4] == ["python", "launch.py", "run", kind.name]
    by_command = workbench.document(words[3], _values(words[4:]))
    assert workbench.resolve(by_command).document == document
    by_file = yaml.safe_load(writing.as_yaml(document))
    assert workbench.resolve(by_file).document == document
    by_python: dict[str, Any] = {}
    exec(writing.as_python(document).partition("folder =")[0], by_python)
    assert by_python["spec"].document == document
    # A job's settings, put back into the form, are the same settings.
    refilled = {one.name: forms.widget_value(one, document[one.name]) for one in forms.fields(kind)}
    again = forms.full(kind, refilled)
    hidden = {one.name for one in forms.fields(kind)} - forms.shown(forms.fields(kind), document)
    assert {name: value for name, value in again.items() if name not in hidden} == {
        name: value for name, value in document.items() if name not in hidden
    }


def test_presets_are_the_recipes_of_the_run(workspace: Any) -> None:
    folder = workspace / "recipes"
    folder.mkdir()
    (folder / "quick.yaml").write_text("run: everything\nabout: quick\nneeded: x\n")
    (folder / "other.yaml").write_text("run: linear_probe\n")
    assert [recipe.name for recipe in forms.presets(Everything)] == ["quick"]
    (folder / "broken.yaml").write_text("[")
    assert forms.presets(Everything) == []


def test_lines_of_python_run_it(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Everything, "run", lambda self, ctx: Result([{"count": self.count, "there": ctx.folder.is_dir()}]))
    exec(writing.as_python({"run": "everything", "needed": "it's", "count": 7}), {})
    assert capsys.readouterr().out == "[{'count': 7, 'there': True}]\n"
