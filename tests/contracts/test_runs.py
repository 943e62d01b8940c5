"""What every run keeps to, whoever wrote it: the form, the command line and the record come from its class."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from app import workbench
from engine.errors import Refused
from engine.run import RunSpec
from engine.settings import HOUSE

RUNS = sorted(workbench.runs())


@pytest.fixture(params=RUNS)
def kind(request: pytest.FixtureRequest) -> type[RunSpec]:
    return workbench.runs()[request.param]


def test_no_file_of_the_house_is_broken() -> None:
    assert workbench.broken() == []


def test_its_docstring_is_the_help(kind: type[RunSpec]) -> None:
    assert kind.__doc__ and kind.__doc__.strip().endswith(".")
    assert len(kind.__doc__.split("\n")[0]) > 20


def test_every_field_is_described(kind: type[RunSpec]) -> None:
    silent = [name for name, field in kind.model_fields.items() if not (field.description or "").strip()]
    assert silent == []


def test_its_name_and_family_are_its_files(kind: type[RunSpec]) -> None:
    module = kind.__module__
    assert kind.name == module.rsplit(".", 1)[-1]
    families = {"analyses": "analysis", "pretexts": "pretext", "tasks": "task", "suites": "suite", "errands": "errand"}
    assert kind.family == families[module.split(".")[-2]]


def test_hints_name_what_there_is(kind: type[RunSpec]) -> None:
    for name, field in kind.model_fields.items():
        hints = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        assert set(hints) <= {"choices", "numbers", "when", "advanced", "unit"}, name
        assert hints.get("choices", "upstreams") in {
            "upstreams",
            "corpora",
            "labels",
            "trainings",
            "analyses",
        } or isinstance(hints["choices"], list), name
        when = hints.get("when", {})
        assert isinstance(when, dict) and set(when) <= set(kind.model_fields), name


def test_its_schema_is_json(kind: type[RunSpec]) -> None:
    json.dumps(kind.model_json_schema())


def test_its_defaults_run_or_it_says_what_it_needs(kind: type[RunSpec]) -> None:
    required = [name for name, field in kind.model_fields.items() if field.is_required()]
    if required:
        with pytest.raises(Refused, match=required[0]):
            workbench.resolve({"run": kind.name})
        return
    spec = workbench.resolve({"run": kind.name})
    assert workbench.resolve(json.loads(json.dumps(spec.document))) == spec
    for sentence in spec.needs():
        assert sentence.endswith(".") and len(sentence) > 15


def test_settings_that_are_not_there_are_refused_by_name(kind: type[RunSpec]) -> None:
    with pytest.raises(Refused, match="nonsense: there is no such setting"):
        workbench.resolve({"run": kind.name, "nonsense": 1})


def test_a_spec_cannot_be_changed_and_its_key_follows_its_settings(kind: type[RunSpec]) -> None:
    required = {name: "x" for name, field in kind.model_fields.items() if field.is_required()}
    try:
        spec = kind(**required)  # type: ignore[arg-type]
    except ValidationError:
        pytest.skip("Its required settings are no plain words.")
    with pytest.raises(ValidationError):
        spec.seed = 5
    assert spec.key == kind(**required).key != kind(**required, seed=5).key  # type: ignore[arg-type]


def test_names_that_nothing_answers_to_are_said_before_it_starts(kind: type[RunSpec]) -> None:
    choices = {
        name: field.json_schema_extra["choices"]
        for name, field in kind.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("choices") in ("upstreams", "corpora")
    }
    required = {name: "x" for name, field in kind.model_fields.items() if field.is_required()}
    for name in choices:
        many = kind.model_fields[name].annotation is not str
        value = ["no-such-name"] if many else "no-such-name"
        reasons = workbench.resolve({"run": kind.name, **required, name: value}).needs()
        assert any("no-such-name" in reason for reason in reasons), f"{kind.name}.{name} is not looked at by needs()"


@pytest.mark.parametrize("file", sorted((HOUSE / "recipes").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_recipe_resolves_and_says_what_it_is_about(file: Path) -> None:
    recipe = next(recipe for recipe in workbench.recipes() if recipe.file == file)
    assert recipe.about.endswith(".") and len(recipe.about) > 20
    spec = workbench.resolve(recipe.document)
    assert spec.needs() == []
