"""Studio / Hub: every upstream there is, what it is, what of it lies here; fetching, deleting and adding one's own."""

import logging
import time
from collections.abc import Callable
from typing import Any

import gradio as gr

from app import cards, summaries, workbench
from app.studio import parts
from engine.errors import AuscultError
from engine.job import State, Status
from engine.settings import settings

TITLE = "Hub"
ORDER = 15

OFFLINE = (
    "The network is switched off here (AUSCULT_OFFLINE or HF_HUB_OFFLINE), so it cannot be fetched. Switch it on and start "
    "Auscult again, or add a copy of the checkpoint by its path."
)

log = logging.getLogger("auscult.studio")
Told = dict[str, Any]  # what the page's script takes: models, transfers, said, report, chosen; only what there is to say


def build() -> None:
    """The page is one part: the list, and beside it the model that is looked at. Its script calls the functions below."""
    with gr.Column(elem_classes="au-hub"):
        parts.hub(
            [
                show_models,
                show_transfers,
                fetch_model,
                stop_fetching,
                delete_model,
                add_checkpoint,
                forget_checkpoint,
                read_weights,
            ]
        )


def show_models(_: str) -> Told:
    """Every model, and what is on its way."""
    return _answered("The models cannot be listed", _everything)


def show_transfers(_: str) -> Told:
    """What is on its way, or broke off."""
    return _answered("The downloads cannot be listed", lambda: {"transfers": transfers()})


def fetch_model(name: str) -> Told:
    """Put the download of a model into the queue; one that broke off goes on where it did."""

    def act() -> Told:
        row = _newest().get(name)
        job = summaries.find(row.id) if row else None
        if row is not None and row.can_resume and job is not None:
            job.resume()
        elif row is None or row.state not in {State.QUEUED, State.RUNNING}:
            workbench.submit({"run": "fetch", "upstream": name})
        return {"transfers": transfers()}

    return _answered("It cannot be fetched", act)


def stop_fetching(name: str) -> Told:
    """Cancel the download of a model; what came so far stays."""

    def act() -> Told:
        row = _newest().get(name)
        job = summaries.find(row.id) if row else None
        if job is not None:
            job.cancel()
        return {"transfers": transfers()}

    return _answered("It cannot be stopped", act)


def delete_model(name: str) -> Told:
    """Remove what was fetched of a model."""

    def act() -> Told:
        freed = workbench.delete_download(name)
        return {**_everything(), "said": _said("good", f"{cards.size(freed)} freed", "It can be fetched again at any time.")}

    return _answered("It was not deleted", act)


def add_checkpoint(path: str) -> Told:
    """Take a file or a folder of the user's into the list, and say how its weights fit."""

    def act() -> Told:
        card = workbench.add_checkpoint(path)
        told = {**_everything(), "chosen": card.name}
        return {**told, "said": _said("good", f"Recognised: {card.family}", card.about), **read_weights(card.name)}

    return _answered("This is not taken", act)


def forget_checkpoint(name: str) -> Told:
    """Take a checkpoint of the user's off the list."""

    def act() -> Told:
        workbench.forget_checkpoint(name)
        return {**_everything(), "said": _said("plain", "Taken off the list", "Its files stay where they are.")}

    return _answered("It was not taken off the list", act)


def read_weights(name: str) -> Told:
    """The report of the strict load, computed by the warm process."""

    def act() -> Told:
        facts = workbench.ask({"run": "check", "upstream": name}).result.facts
        return {"report": {"name": name, "facts": cards.report(facts)}}

    return _answered("The weights do not fit", act)


def _answered(title: str, act: Callable[[], Told]) -> Told:
    try:
        return act()
    except AuscultError as error:
        return {"said": _said("bad", title, str(error))}
    except Exception:
        log.exception("The hub failed: %s", title)
        return {"said": _said("bad", title, "Something unexpected went wrong; the server's log says what.")}


def _said(kind: str, title: str, sentence: str) -> dict[str, str]:
    return {"kind": kind, "title": title, "sentence": sentence}


def _everything() -> Told:
    models = [cards.model(entry) for entry in workbench.models()]
    return {"models": models, "transfers": transfers(), "offline": OFFLINE if settings().offline else ""}


def transfers() -> list[dict[str, Any]]:
    """The newest download of each model."""
    found = []
    for name, row in _newest().items():
        status = summaries.LEDGER.status(row.id)
        if status is not None:
            found.append(
                {
                    "name": name,
                    "job": row.id,
                    "state": row.state,
                    "text": row.state_text,
                    "share": row.share,
                    "said": _progress(row, status),
                    "reason": row.reason,
                    "stoppable": row.can_cancel,
                }
            )
    return found


def _newest() -> dict[str, summaries.Summary]:
    """Upstream -> the last job that fetched it."""
    found: dict[str, summaries.Summary] = {}
    for row in summaries.LEDGER.rows():
        if row.run == "fetch":
            found.setdefault(row.about, row)
    return found


def _progress(row: summaries.Summary, status: Status) -> str:
    if row.state == State.QUEUED or status.total <= 0 or status.stage != "bytes":
        return row.stage.capitalize()
    spent, gained = time.time() - status.stage_started, status.done - status.stage_base
    pace = f"{cards.size(gained / spent)}/s" if row.state == State.RUNNING and spent > 0 and gained > 0 else ""
    left = f"{row.left} left" if row.left else ""
    return " · ".join(part for part in (f"{cards.size(status.done)} of {cards.size(status.total)}", pace, left) if part)
