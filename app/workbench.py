"""The one door from the pages and the command line to the engine."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_origin

import yaml
from pydantic import ValidationError

from app import clips
from engine import corpus, hub, upstream
from engine.errors import Refused, Unknown
from engine.job import EXECUTORS, Job, JobStore
from engine.live import Answer, Live
from engine.registry import Broken, Registry
from engine.rows import Unit
from engine.run import RunSpec
from engine.settings import HOUSE, settings
from probing import offered
from probing.analysis import ANALYSES

COMMAND = [sys.executable, "-m", "app.cli"]

# The families of things a user can start, in the order pages show them.
FAMILIES: dict[str, Registry[RunSpec]] = {
    "analysis": ANALYSES,
    "pretext": Registry(RunSpec, "engine.pretexts"),  # type: ignore[type-abstract]
    "task": Registry(RunSpec, "engine.tasks"),  # type: ignore[type-abstract]
    "suite": Registry(RunSpec, "engine.suites"),  # type: ignore[type-abstract]
    "errand": Registry(RunSpec, "engine.errands"),  # type: ignore[type-abstract]
}


def runs() -> dict[str, type[RunSpec]]:
    """Every RunSpec by name."""
    return {name: kind for family in FAMILIES.values() for name, kind in family.classes().items()}


def broken() -> list[Broken]:
    """Extension files that could not be imported."""
    found = [file for family in FAMILIES.values() for file in family.broken]
    return [*found, *upstream.UPSTREAMS.broken, *corpus.CORPORA.broken, *EXECUTORS.broken]


def resolve(document: dict[str, Any]) -> RunSpec:
    """The validated spec of a plain document; errors are sentences that name the field."""
    values = dict(document)
    name = str(values.pop("run", ""))
    known = runs()
    if name not in known:
        raise Unknown("run", name, known)
    try:
        return known[name](**_listed(known[name], values))
    except ValidationError as error:
        said = "; ".join(f"{field}: {sentence}" for field, sentence in field_errors(error).items())
        raise Refused(f"The settings of {name} are not usable. {said}") from error


def _listed(kind: type[RunSpec], values: dict[str, Any]) -> dict[str, Any]:
    """Where a list is asked for, one word is a list of it: `upstreams=fbank`."""
    lists = {name for name, info in kind.model_fields.items() if get_origin(info.annotation) in {list, tuple}}
    return {name: [value] if name in lists and isinstance(value, str | int) else value for name, value in values.items()}


def field_errors(error: ValidationError) -> dict[str, str]:
    """Field -> what is wrong with it, in one sentence."""
    said: dict[str, str] = {}
    for entry in error.errors():
        field = str(entry["loc"][0]) if entry["loc"] else "the whole"
        sentence = entry["msg"].removeprefix("Value error, ")
        if entry["type"] == "extra_forbidden":
            sentence = "there is no such setting"
        said[field] = sentence
    return said


@dataclass(frozen=True)
class Recipe:
    """A named document: the settings of one run, in a YAML file."""

    name: str
    file: Path
    about: str
    document: dict[str, Any]


def recipes() -> list[Recipe]:
    """The recipes of the house, then the user's own."""
    files = [*sorted((HOUSE / "recipes").glob("*.yaml")), *sorted((settings().workspace / "recipes").glob("*.yaml"))]
    return [_read_recipe(file) for file in files]


def _read_recipe(file: Path) -> Recipe:
    try:
        document = yaml.safe_load(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Refused(f"{file} is not a readable YAML file: {error}") from error
    if not isinstance(document, dict) or "run" not in document:
        raise Refused(f"{file} is not a recipe: it must be a mapping with the line 'run: NAME'.")
    return Recipe(file.stem, file, str(document.pop("about", "")), document)


def document(name_or_file: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """The document that `run NAME|FILE key=value` means: a run's name, a recipe's name, or a YAML file."""
    file = Path(name_or_file)
    if file.suffix in {".yaml", ".yml", ".json"}:
        base = _read_recipe(file).document
    elif name_or_file in runs():
        base = {"run": name_or_file}
    else:
        found = {recipe.name: recipe for recipe in recipes()}
        if name_or_file not in found:
            raise Unknown("run or recipe", name_or_file, [*runs(), *found])
        base = found[name_or_file].document
    return {**base, **overrides}


def upstreams() -> list[upstream.Card]:
    """The card of every upstream known ahead."""
    return list(upstream.cards())


def models() -> list[hub.Entry]:
    """Every upstream, and how much of it is here."""
    return hub.entries()


def add_checkpoint(path: str) -> upstream.Card:
    """Take a checkpoint of the user's own into the list."""
    return hub.add(path)


def forget_checkpoint(name: str) -> None:
    """Take an added checkpoint off the list; its files stay."""
    hub.forget(name)


def delete_download(name: str) -> int:
    """Remove what was fetched of an upstream; how many bytes that freed."""
    return hub.delete(name)


def trainings() -> list[str]:
    """The jobs that keep snapshots of an upstream, newest first."""
    kinds = FAMILIES["pretext"].classes()
    return [job.id for job in jobs() if job.document.get("run") in kinds and job.document.get("snapshots")]


def corpora() -> list[str]:
    """The name of every corpus that can be offered at once."""
    return corpus.known()


def labels(name: str, unit: Unit, *, numbers: bool = False) -> dict[str, str]:
    """Label -> what is known of it, as far as a corpus can say without its sound being read."""
    return offered.labels(name, unit, numbers=numbers)


def clip(name: str, content: str, utterance: str, start: float, end: float) -> clips.Clip:
    """A stretch of an utterance to listen to, with a little room around it; `content` is the corpus as it was."""
    return clips.cut(name, content, utterance, start, end)


def store() -> JobStore:
    """The jobs of this workspace."""
    return JobStore()


def submit(document: dict[str, Any], *, priority: int = 0, executor: str = "process") -> Job:
    """Check a document and put it in the queue."""
    spec = resolve(document)
    reasons = spec.needs()
    if reasons:
        raise Refused(" ".join(reasons))
    return store().submit(spec.document, priority=priority, executor=executor, slots=spec.slots * spec.together)


def jobs() -> Iterator[Job]:
    """Every job, newest first."""
    yield from reversed(list(store()))


@cache
def live() -> Live:
    """The warm process of this server; started at the first question."""
    return Live([*COMMAND, "live"])


def ask(document: dict[str, Any]) -> Answer:
    """Have something small computed at once by the warm process."""
    return live().ask(resolve(document).document)
