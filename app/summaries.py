"""What the Jobs pages say about a job, in words and plain numbers: one meaning for both interfaces."""

import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from app import workbench
from engine.events import Event
from engine.job import Job, State, Status

SHOWN = 200  # newest jobs in a table
STALE = 30.0  # seconds without a sign of life after which a running job is worth a look
POINTS = 2000  # points of a curve that a page draws; more are thinned
LOWER_IS_BETTER = ("loss", "error", "eer", "wer", "cer", "per", "perplexity", "mse", "seconds")

STATES = {
    State.QUEUED: "Waiting",
    State.RUNNING: "Running",
    State.FINISHED: "Finished",
    State.FAILED: "Failed",
    State.CANCELLED: "Cancelled",
}


@dataclass(frozen=True)
class Summary:
    """A job as one row of a table."""

    id: str
    run: str
    parent: str  # the job that started it
    title: str
    about: str  # what it works on: upstream, corpus
    state: str  # queued, running, finished, failed or cancelled: what colours it
    state_text: str
    stage: str
    share: float | None  # 0 to 1; None = unknown
    left: str
    heartbeat: str
    stale: bool
    metric: str  # the last value of the metric that matters
    best: str
    age: str
    when: str  # it was added, on the clock of this machine: unlike its age, this stays
    took: str
    reason: str
    can_cancel: bool
    can_resume: bool
    has_result: bool  # or what a run that goes on has found so far


@dataclass
class Curves:
    """The metrics of a job over its steps."""

    points: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        """Add one event's numbers. A run that went back to a checkpoint replaces what it does again."""
        step = event.values.get("step")
        if event.kind not in {"metric", "pace"} or not isinstance(step, (int, float)):
            return
        for name, value in event.values.items():
            if name == "step" or isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                continue
            series = self.points.setdefault(name, [])
            while series and series[-1][0] >= step:
                series.pop()
            series.append((step, value))

    def main(self, first: str = "") -> str:
        """The metric that matters most: the one asked for, else a score on held-out data, else any."""
        if first in self.points:
            return first
        order = sorted(self.points, key=lambda name: (not name.startswith(("valid", "test", "score")), "loss" not in name))
        return order[0] if order else ""

    def best(self, name: str, higher: bool) -> tuple[float, float] | None:
        """Step and value of the best point of a metric."""
        series = self.points.get(name)
        if not series:
            return None
        return (max if higher else min)(series, key=lambda point: point[1])


class Ledger:
    """The jobs of the workspace, read by byte offset: asking again costs only what is new."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, _Read] = OrderedDict()

    def rows(self, limit: int = SHOWN) -> list[Summary]:
        """The newest jobs, newest first; what a job started stands under it."""
        ids = sorted((job.id for job in workbench.jobs()), key=lambda id: id)
        ids.sort(key=lambda id: id.partition(".")[0], reverse=True)
        found = (self.row(id) for id in ids[:limit])
        return [row for row in found if row is not None]

    def count(self) -> int:
        """How many jobs there are."""
        return sum(1 for _ in workbench.jobs())

    def row(self, id: str) -> Summary | None:
        """One job; None when there is none of that id."""
        job = find(id)
        return None if job is None else self._row(job)

    def curves(self, id: str) -> dict[str, list[tuple[float, float]]]:
        """The metrics of a job; long ones thinned, first and last point kept."""
        job = find(id)
        if job is None:
            return {}
        with self._lock:
            read = self._fresh(job)
            return {name: thin(series) for name, series in read.curves.points.items()}

    def status(self, id: str) -> Status | None:
        """What the events of one job add up to."""
        job = find(id)
        if job is None:
            return None
        with self._lock:
            return replace(self._fresh(job).job.status())

    def _row(self, job: Job) -> Summary | None:
        try:
            with self._lock:
                read = self._fresh(job)
                return summary(read.job, read.job.status(), read.document, read.curves)
        except (OSError, ValueError, KeyError):
            return None  # a folder that is being written or deleted, or is no job

    def _fresh(self, job: Job) -> "_Read":
        key = str(job.folder)
        if key not in self._known:
            self._known[key] = _Read(job, document(job))
            while len(self._known) > 4 * SHOWN:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        read = self._known[key]
        read.take()
        return read


class _Read:
    """What has been read of a job so far."""

    def __init__(self, job: Job, document: dict[str, Any]) -> None:
        self.job = job
        self.document = document
        self.curves = Curves()
        self.offset = 0

    def take(self) -> None:
        events, self.offset = self.job.events.read(self.offset)
        for event in events:
            self.curves.take(event)


LEDGER = Ledger()


def find(id: str) -> Job | None:
    """The job of exactly this id, or None. What a page or an address says is never used as a path."""
    if not id or id.startswith(".") or "/" in id or "\\" in id or "\0" in id or len(id) > 200:
        return None
    job = Job(workbench.store().root / id)
    return job if job.spec_file.exists() else None


def document(job: Job) -> dict[str, Any]:
    """The spec of a job; an unreadable one is empty but for its run."""
    try:
        return {"run": "", **job.document}
    except (OSError, ValueError, TypeError):
        return {"run": ""}


def summary(job: Job, status: Status, document: Mapping[str, Any], curves: Curves) -> Summary:
    """The row of one job."""
    now = time.time()
    state = status.state
    asked = state in {State.QUEUED, State.RUNNING} and job.cancel_file.exists()
    beat = job.heartbeat() if state is State.RUNNING else None
    primary, higher = goal(str(document.get("run", "")))
    name = curves.main(primary)
    if name != primary:
        higher = not lower_is_better(name)
    best = curves.best(name, higher)
    stage = status.stage
    if state is State.QUEUED:
        stage = (
            f"Lost {status.lost} time{'s' if status.lost > 1 else ''}, waiting to start again"
            if status.lost
            else "Waiting for a slot"
        )
    elif state is State.RUNNING and not stage:
        stage = "Starting"
    elif state.is_over:
        stage = ""
    return Summary(
        id=job.id,
        run=str(document.get("run", "")),
        parent=status.parent,
        title=title(str(document.get("run", ""))),
        about=about(document),
        state=str(state),
        state_text="Stopping" if asked else STATES[state],
        stage=stage,
        share=1.0 if state is State.FINISHED else min(1.0, status.done / status.total) if status.total > 0 else None,
        left=span(status.seconds_left) if status.seconds_left is not None else "",
        heartbeat="" if beat is None else f"{span(beat)} ago" if beat >= 1 else "now",
        stale=beat is not None and beat > STALE,
        metric=f"{name.replace('_', ' ')} {number(curves.points[name][-1][1])}" if name else "",
        best=f"best {number(best[1])} at step {best[0]:,.0f}" if best else "",
        age=span(now - status.submitted) if status.submitted else "",
        when=time.strftime("%d %b %H:%M:%S", time.localtime(status.submitted)) if status.submitted else "",
        took=span(status.ended - status.started) if status.ended > status.started > 0 else "",
        reason=status.reason,
        can_cancel=not state.is_over and not asked,
        can_resume=state in {State.FAILED, State.CANCELLED},
        has_result=job.result_file.exists() or job.partial_file.exists(),
    )


def title(run: str) -> str:
    """A run's name as a person reads it, also when its file is gone."""
    kind = workbench.runs().get(run)
    return kind.title() if kind else run.replace("_", " ").capitalize()


def goal(run: str) -> tuple[str, bool]:
    """The metric that a run says matters, and whether more of it is better."""
    kind = workbench.runs().get(run)
    primary = str(getattr(kind, "primary", "") or "")
    return primary, bool(getattr(kind, "higher_is_better", not lower_is_better(primary)))


def quantities(names: Iterable[str]) -> dict[str, list[str]]:
    """Quantity -> its metrics: train_loss and valid_loss are both "loss"."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        found.setdefault(re.sub(r"^(train|valid|validation|dev|test)[_/]", "", name), []).append(name)
    return found


def no_curve(status: Status) -> str:
    """What stands where the curves of a job would be, when there are none."""
    if status.state is State.FINISHED:
        return "This run records nothing over time. Its numbers are in its result."
    return "It recorded no numbers." if status.state.is_over else "It has recorded no numbers yet."


def lower_is_better(metric: str) -> bool:
    """Whether a metric of this name counts mistakes."""
    return any(word in LOWER_IS_BETTER for word in metric.lower().replace("/", "_").split("_"))


def about(document: Mapping[str, Any]) -> str:
    """What a run works on, in a few words."""
    names = [document.get(name) for name in ("upstream", "upstreams", "corpus", "corpora", "label")]
    words = [", ".join(map(str, name)) if isinstance(name, list) else str(name) for name in names if name]
    return " · ".join(words)


def span(seconds: float) -> str:
    """A length of time as a person says it: "8 s", "3 min", "2 h 10 min", "4 days"."""
    seconds = max(0.0, seconds)
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes and hours < 10 else f"{hours} h"
    days = round(seconds / 86400)
    return f"{days} day{'s' if days != 1 else ''}"


def number(value: float) -> str:
    """A metric with as many digits as say something."""
    if value != 0 and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def thin(points: list[tuple[float, float]], limit: int = POINTS) -> list[tuple[float, float]]:
    """At most about `limit` points: the lowest and the highest of each stretch stay, so that no spike is lost."""
    if len(points) <= limit:
        return list(points)
    width = math.ceil(2 * len(points) / (limit - 2))
    kept = [points[0]]
    for start in range(1, len(points) - 1, width):
        part = points[start : min(start + width, len(points) - 1)]
        kept += sorted({min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])})
    return [*kept, points[-1]]
