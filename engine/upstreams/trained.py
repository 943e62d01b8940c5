"""Upstreams trained here: those that come with Auscult, by name, and those of pretext jobs.

job:ID is what a finished job has made, job:ID@best what guessed best on the way, job:ID@128 what it was after 128 steps;
some make more, by names of their own.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine import weights
from engine.errors import AuscultError, Refused, Unknown
from engine.job import JobStore
from engine.pretext import PRETEXTS, STEPS
from engine.settings import HOUSE
from engine.upstream import Card, Family, Upstream

SHIPPED = HOUSE / "assets" / "upstreams"


def open_trained(card: Card) -> Upstream:
    """Build the network that the card's spec describes and read its weights."""
    file = _folder(card.name) / "model.safetensors"
    upstream = untrained(card)
    upstream.loaded = weights.fit(upstream, weights.read(file).tensors, f"'{file}'")
    return upstream


def untrained(card: Card) -> Upstream:
    """The network of the card's spec before it has learnt anything."""
    spec = dict(_read(_folder(card.name))["spec"])
    network = PRETEXTS.get(str(spec.pop("run")))(**spec).network()
    network.card = replace(card, taps=network.card.taps)
    return network


def _folder(name: str) -> Path:
    return _made(name.removeprefix("job:")) if name.startswith("job:") else SHIPPED / name


def _made(place: str) -> Path:
    """Where the upstream lies that is called ID, ID@best or ID@STEP."""
    id, _, which = place.partition("@")
    made = JobStore().get(id).folder / "artifacts"
    if which.isdigit():
        return made / STEPS / f"{int(which):09d}"
    return made / (which or "upstream")


def _card(name: str, folder: Path, source: str) -> Card:
    values = _read(folder)
    held = folder / "model.safetensors"
    return Card(
        name=name,
        family=values.get("family", "Trained here"),  # cards that were written before it was known say where
        layers=values["layers"],
        dims=tuple(values["dims"]),
        hop=values["hop"],
        shortest=values["shortest"],
        open=open_trained,
        source=source,
        revision=values["revision"],
        license=values["license"],
        attention=values["attention"],
        untrained=untrained,
        about=values["about"],
        # Cards that were written before these were known do without.
        differentiable=values.get("differentiable", True),
        paper=values.get("paper", ""),
        data=values.get("data", ""),
        languages=tuple(values.get("languages", ())),
        measured=_measured(values.get("scores", {})),
        parameters=values.get("parameters", 0),
        bytes=held.stat().st_size if held.exists() else 0,
    )


def _measured(scores: dict[str, Any]) -> str:
    """What probes of the best layer found: "phone of each frame 0.68 (untrained 0.62, fbank 0.59)"."""
    told = []
    for label, score in scores.items():
        found = {name: f"{each['value']:.2f}" for name, each in score.items() if isinstance(each, dict)}
        ours = found.pop("this")
        others = ", ".join(f"{name} {value}" for name, value in found.items())
        told.append(f"{label} of each {score['unit']} of {score['corpus']} {ours} ({others})")
    return "; ".join(told)


def _read(folder: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads((folder / "card.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise Refused(f"{folder.name} holds no upstream: {error}") from error
    return values


def _known() -> Iterator[Card]:
    for card in sorted(SHIPPED.glob("*/card.json")):
        yield _card(card.parent.name, card.parent, "built in")
    for job in JobStore():
        folder = job.folder / "artifacts" / "upstream"
        if (folder / "card.json").exists() and job.result_file.exists():
            try:
                yield _card(f"job:{job.id}", folder, f"trained here by job {job.id}")
            except (AuscultError, KeyError):
                continue  # a damaged card must not hide the others


def _find(place: str) -> Card:
    id, at, which = place.partition("@")
    job = JobStore().get(id)
    if which and not (_made(place) / "card.json").exists():
        there = [str(int(card.parent.name)) for card in job.folder.glob(f"artifacts/{STEPS}/*/card.json")]
        made = sorted(card.parent.name for card in job.folder.glob("artifacts/*/card.json"))
        raise Unknown(f"snapshot of job {job.id}", which, [name for name in made if name != "upstream"] + there)
    folder = _made(place)
    if not (folder / "card.json").exists():
        raise Refused(f"Job {job.id} has made no upstream: it is {job.status().state} and runs {job.document['run']}.")
    return _card(f"job:{job.id}{at}{which}", folder, f"trained here by job {job.id}")


FAMILY = Family(cards=_known, prefix="job", find=_find)
