"""The form of a RunSpec, drawn from its class: pure data that a page turns into widgets, a command line and a YAML file.

The form follows the class: each field's type picks its widget, its description is the help beside it, and
`json_schema_extra` may say `choices` (upstreams, corpora, labels, trainings, analyses), `numbers` (labels that are numbers
are offered too), `when` (shown only while other fields have these values), `advanced` (folded away) and `unit`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types as limit
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from app import workbench
from app.cards import size
from engine.errors import AuscultError, Refused
from engine.rows import Unit
from engine.run import RunSpec
from engine.upstream import Card

Kind = Literal["text", "number", "integer", "slider", "switch", "choice", "choices", "list"]

SLIDER_STEPS = 100  # an integer range up to this long is a slider


@dataclass(frozen=True)
class Field:
    """One field of a form."""

    name: str
    kind: Kind
    label: str
    help: str = ""
    default: Any = None
    required: bool = False
    optional: bool = False  # may be left empty, and empty means "none"
    low: float | None = None
    high: float | None = None
    step: float | None = None
    limits: str = ""  # the limits in words: "0 to 10", "more than 0"
    choices: tuple[Any, ...] = ()
    choices_from: str = (
        ""  # upstreams, corpora, labels, trainings or analyses: what is offered is looked up when the form is drawn
    )
    numbers: bool = False  # labels that are numbers are offered too
    item: Kind = "text"  # what a list holds
    unit: str = ""
    advanced: bool = False
    when: Mapping[str, Any] = field(
        default_factory=dict
    )  # shown while every other field named here has (one of) these values


def fields(kind: type[RunSpec]) -> list[Field]:
    """The form of a class in its order, but for what leads; the seed that all share comes last among the advanced ones."""
    made = [_field(kind, name, info) for name, info in kind.model_fields.items()]
    lead = {name: place - len(kind.leading) for place, name in enumerate(kind.leading)}
    return sorted(made, key=lambda one: (one.advanced, one.name == "seed", lead.get(one.name, 0)))


def _field(kind: type[RunSpec], name: str, info: FieldInfo) -> Field:
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    annotation, optional = _without_none(info.annotation)
    found = _shape(annotation)
    if found is None:
        raise Refused(
            f"The setting '{name}' of {kind.name} is of type {info.annotation}, which no form field can show. "
            "Use a switch, number, text, Literal, Enum, or a list of them."
        )
    shape, item, choices = found
    low, high, step, limits = _limits(info.metadata, shape)
    default = None if info.is_required() else info.get_default(call_default_factory=True)
    default = plain(default)
    if shape == "integer" and low is not None and high is not None and high - low <= SLIDER_STEPS and not optional:
        shape, step = "slider", step or 1
    source = str(extra.get("choices", ""))
    if source and not choices:
        shape = "choices" if shape == "list" else "choice"
    when = extra.get("when", {})
    return Field(
        name=name,
        kind=shape,
        label=info.title or name.replace("_", " ").capitalize(),
        help=info.description or "",
        default=default,
        required=info.is_required(),
        optional=optional,
        low=low,
        high=high,
        step=step,
        limits=limits,
        choices=choices,
        choices_from=source,
        numbers=bool(extra.get("numbers", name == "label" and getattr(kind, "takes_numbers", False))),
        item=item,
        unit=str(extra.get("unit", "")),
        advanced=bool(extra.get("advanced", name == "seed")),
        when=dict(when) if isinstance(when, dict) else {},
    )


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) in {Union, UnionType}:
        parts = [part for part in get_args(annotation) if part is not NoneType]
        if len(parts) == 1 and len(parts) < len(get_args(annotation)):
            return parts[0], True
    return annotation, False


def _shape(annotation: Any) -> tuple[Kind, Kind, tuple[Any, ...]] | None:
    """The widget of a type, what its items are, and its fixed choices; None when no widget can show it."""
    origin = get_origin(annotation)
    if origin is Literal:
        return "choice", "text", get_args(annotation)
    if origin in {list, tuple}:
        parts = [part for part in get_args(annotation) if part is not Ellipsis]
        if not parts or any(part != parts[0] for part in parts):
            return None
        inner = _shape(parts[0])
        if inner is None or inner[0] in {"list", "choices", "switch"}:
            return None
        return ("choices" if inner[2] else "list"), inner[0], inner[2]
    if not isinstance(annotation, type):
        return None
    if issubclass(annotation, Enum):
        return "choice", "text", tuple(member.value for member in annotation)
    for known, shape in ((bool, "switch"), (int, "integer"), (float, "number"), (str, "text")):
        if annotation is known:
            return shape, "text", ()  # type: ignore[return-value]
    return None


def _limits(metadata: list[Any], shape: Kind) -> tuple[float | None, float | None, float | None, str]:
    low: Any = None
    high: Any = None
    step: Any = None
    above = below = False
    for rule in metadata:
        if getattr(rule, "ge", None) is not None:
            low = rule.ge
        if getattr(rule, "gt", None) is not None:
            low, above = rule.gt, True
        if getattr(rule, "le", None) is not None:
            high = rule.le
        if getattr(rule, "lt", None) is not None:
            high, below = rule.lt, True
        if isinstance(rule, limit.MultipleOf):
            step = rule.multiple_of
    if shape not in {"number", "integer"}:
        return None, None, None, ""
    if shape == "integer":  # whole numbers need no open ends
        low, above = (low + 1, False) if above else (low, False)
        high, below = (high - 1, False) if below else (high, False)
    over = f"more than {_number(low)}" if above else f"{_number(low)} or more"
    under = f"less than {_number(high)}" if below else f"at most {_number(high)}"
    if low is not None and high is not None:
        if high >= 2**31 - 1:
            said = over
        else:
            said = f"{over}, {under}" if above or below else f"{_number(low)} to {_number(high)}"
    else:
        said = over if low is not None else under if high is not None else ""
    return low, high, step, said


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:g}"


def plain(value: Any) -> Any:
    """A value as JSON would hold it."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def choices(one: Field, values: Mapping[str, Any]) -> dict[Any, str]:
    """What a field offers while the form holds these values, and what a person reads for each.

    An upstream, corpus or label that is not listed may still be typed.
    """
    if one.choices_from == "upstreams":
        cards = sorted(workbench.upstreams(), key=lambda card: not card.here)
        return {card.name: _upstream(card) for card in cards}
    if one.choices_from == "corpora":
        return {name: name for name in workbench.corpora()}
    if one.choices_from == "trainings":
        return {name: name for name in workbench.trainings()}
    if one.choices_from == "analyses":
        known = workbench.FAMILIES["analysis"].classes().items()
        return {name: kind.title() for name, kind in known if "upstreams" in kind.model_fields}
    if one.choices_from == "labels":
        unit: Unit = values["unit"] if values.get("unit") in get_args(Unit) else "frame"
        found = workbench.labels(str(values.get("corpus", "")), unit, numbers=one.numbers)
        return {name: f"{name} · {about}" for name, about in found.items()}
    return {value: str(value) for value in one.choices}


def _upstream(card: Card) -> str:
    """An upstream that is here by its name alone, any other with what it costs to have it."""
    if card.here:
        return card.name
    return f"{card.name} · {size(card.bytes)} to fetch" if card.bytes else f"{card.name} · to fetch"


def shown(form: list[Field], values: Mapping[str, Any]) -> set[str]:
    """The fields that matter while the form holds these values."""
    have = {one.name: one.default if values.get(one.name) is None else values[one.name] for one in form}
    rules = {one.name: one.when for one in form}

    def holds(name: str, above: frozenset[str]) -> bool:
        for other, wanted in rules[name].items():
            # A field that depends on a hidden field is hidden with it.
            if other not in rules or other in above or not holds(other, above | {name}):
                return False
            if have[other] not in (wanted if isinstance(wanted, (list, tuple)) else [wanted]):
                return False
        return True

    return {one.name for one in form if holds(one.name, frozenset())}


def document(kind: type[RunSpec], values: Mapping[str, Any]) -> dict[str, Any]:
    """The document that a filled-in form means: hidden fields are dropped, empty ones keep their default."""
    form = fields(kind)
    given = read(form, values)
    visible = shown(form, given)
    made: dict[str, Any] = {"run": kind.name}
    for one in form:
        if one.name not in given or one.name not in visible:
            continue
        value = given[one.name]
        if value is None and not (one.optional and one.default is not None):
            continue
        made[one.name] = value
    return made


def read(form: list[Field], values: Mapping[str, Any]) -> dict[str, Any]:
    """What the widgets of a form hold, as the values they mean; an empty one is None."""
    return {one.name: _read(one, values[one.name]) for one in form if one.name in values}


def _read(one: Field, value: Any) -> Any:
    """What a widget holds, as the value it means. What cannot be read is left as it is, for the class to refuse."""
    if isinstance(value, str):
        value = value.strip()
    if value is None or value == "":
        return None
    if one.kind == "list":
        return _read_list(one, value)
    if one.kind in {"integer", "slider", "number"}:
        return _read_number(one.kind, value)
    if one.kind == "choice" and isinstance(value, str):
        # A page may hand back the text of a choice that is a number.
        return next((choice for choice in one.choices if choice == value or str(choice) == value), value)
    return plain(value)


def _read_list(one: Field, value: Any) -> Any:
    if isinstance(value, str):
        if value.startswith("["):
            try:
                value = json.loads(value)
            except ValueError:
                return value
        else:
            value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, (list, tuple)):
        return value
    return [_read_number(one.item, item) if one.item != "text" else item for item in value]


def _read_number(kind: Kind, value: Any) -> Any:
    """A number as a widget holds it: 3.0 where 3 is meant, or text. What is no number stays, for the class to refuse."""
    try:
        if isinstance(value, str):
            return float(value) if kind == "number" else int(value)
    except ValueError:
        return value
    whole = kind != "number" and isinstance(value, float) and value.is_integer()
    return int(value) if whole else value


def widget_value(one: Field, value: Any) -> Any:
    """What the widget of a field holds for a value: the way back from `document`."""
    if one.kind != "list":
        return plain(value)
    if isinstance(value, str):
        return value
    return "[]" if not value and one.default else as_text(value)


def as_text(values: Any) -> str:
    """How a list field shows its value: "0, 3, 6"."""
    items = [str(item) for item in values or []]
    if any("," in item or item != item.strip() or item.startswith("[") or not item for item in items):
        return json.dumps(values, ensure_ascii=False)
    return ", ".join(items)


def errors(kind: type[RunSpec], values: Mapping[str, Any]) -> dict[str, str]:
    """Field -> what is wrong with it, in a sentence; empty when the form can be submitted."""
    made = document(kind, values)
    form = fields(kind)
    missing = {one.name for one in form if one.required and one.name not in made}
    said = {name: "This has no default: fill it in." for name in missing & shown(form, read(form, values))}
    try:
        kind(**{name: value for name, value in made.items() if name != "run"})
    except ValidationError as error:
        for name, sentence in workbench.field_errors(error).items():
            said.setdefault(name, _sentence(sentence))
    except AuscultError as error:
        said["the whole"] = str(error)
    return said


def _sentence(text: str) -> str:
    text = text.replace("Input should be", "This should be").strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def full(kind: type[RunSpec], values: Mapping[str, Any]) -> dict[str, Any]:
    """The validated document of a filled-in form, defaults included; a form with errors gives what is written in it."""
    made = document(kind, values)
    try:
        return kind(**{name: value for name, value in made.items() if name != "run"}).document
    except (ValidationError, AuscultError):
        return made


def presets(kind: type[RunSpec]) -> list[workbench.Recipe]:
    """The recipes of a run; a folder with an unreadable recipe in it gives none (the command line says which)."""
    try:
        return [recipe for recipe in workbench.recipes() if recipe.document.get("run") == kind.name]
    except AuscultError:
        return []
