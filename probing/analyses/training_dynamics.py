"""How layers come to know what they know: any analysis over the snapshots of a training."""

import time
from typing import Any, ClassVar

from pydantic import Field

from engine import corpus
from engine.errors import AuscultError, Refused
from engine.job import Job, JobStore
from engine.rows import Unit
from engine.run import Context, Figure, Result, RunSpec, Value
from engine.training.plan import snapshots
from probing.analysis import ANALYSES

WAIT = 2.0  # seconds between two looks for a new snapshot
REACHED = 0.9  # of what a layer gains in all


class TrainingDynamics(RunSpec):
    """Measures every snapshot of a training by another analysis: which layer learns what first, and when.

    The training keeps its upstream at the steps 0, 1, 2, 4, 8 ... where its setting snapshots is on. Each is measured by a
    job of its own as soon as it is there, beside the training where no place in the queue is free, and the map of
    steps and layers fills while the training goes on. Step 0 is the untrained network.
    """

    family: ClassVar[str] = "analysis"
    slots: ClassVar[int] = 0  # it starts other runs and waits for them

    training: str = Field(
        description="The job that trains, or has trained, with snapshots.", json_schema_extra={"choices": "trainings"}
    )
    analysis: str = Field(
        "linear_probe", description="How each snapshot is measured.", json_schema_extra={"choices": "analyses"}
    )
    corpus: str = Field(
        "spoken:digits", description="The recordings they are examined on.", json_schema_extra={"choices": "corpora"}
    )
    unit: Unit = Field("phone", description="What one row stands for: a frame, a phone, a word or a whole utterance.")
    label: str = Field(
        "phone", description="The label of the rows that is looked for.", json_schema_extra={"choices": "labels"}
    )

    def needs(self) -> list[str]:
        reasons = corpus.missing(self.corpus)
        try:
            job = self._job()
            kind = ANALYSES.get(self.analysis)
            if kind.name == self.name or "upstreams" not in kind.model_fields:
                reasons.append(f"{kind.title()} does not measure upstreams, so it cannot follow a training.")
            if not job.document.get("snapshots"):
                reasons.append(f"Job {job.id} keeps no snapshots; train with snapshots=true.")
        except AuscultError as error:
            reasons.append(str(error))
        return reasons

    def run(self, ctx: Context) -> Result:
        """Measure snapshots in the order of their steps until the training is over and none is left."""
        job = self._job()
        done: list[int] = []
        table: list[dict[str, Value]] = []
        while True:
            over = job.status().state.is_over
            coming = [step for step in _steps(job) if step not in done]
            if not coming and over:
                break
            for step in coming:
                ctx.check()
                ctx.progress(len(done), len(done) + _left(job, done), f"measuring step {step:,}")
                table += self._measured(step, ctx)
                done.append(step)
                ctx.partial(self._result(job, table, done))
            if not coming:
                ctx.progress(len(done), len(done) + _left(job, done), "waiting for the next snapshot")
                time.sleep(WAIT)
        if not done:
            raise Refused(f"Job {job.id} ended without a snapshot: {job.status().reason or job.status().state}.")
        return self._result(job, table, done)

    def _job(self) -> Job:
        return JobStore().get(self.training.removeprefix("job:"))

    def _measured(self, step: int, ctx: Context) -> list[dict[str, Value]]:
        """The lines of one snapshot: what is told of the snapshot itself, layer by layer."""
        name = f"job:{self.training.removeprefix('job:')}@{step}"
        kind = ANALYSES.get(self.analysis)
        # Step 0 is the untrained twin, and floors and controls would be measured anew with each snapshot.
        plain: dict[str, Any] = {"baselines": [], "twin": False, "control": False, "repeats": 1}
        wanted = {
            "upstreams": [name],
            "corpus": self.corpus,
            "unit": self.unit,
            "label": self.label,
            "seed": self.seed,
            **plain,
        }
        known = {key: value for key, value in wanted.items() if key in kind.model_fields}
        (result,) = ctx.children([{"run": self.analysis, **known}], watched=self._job().id)
        lines = [line for line in result.table if line.get("upstream", name) == name and "layer" in line and "value" in line]
        return [
            {"step": step, "snapshot": f"{step:,}", **{key: value for key, value in line.items() if key != "upstream"}}
            for line in lines
        ]

    def _result(self, job: Job, table: list[dict[str, Value]], done: list[int]) -> Result:
        measures = list(dict.fromkeys(str(line.get("measure", "")) for line in table))
        figures = []
        for measure in measures:
            where: dict[str, Value] = {"measure": measure} if measure else {}
            called = measure.replace("_", " ") or "value"
            title = f"{called.capitalize()} as the training goes on"
            over: dict[str, Any] = {"x": "snapshot", "where": where, "x_title": "step"}
            figures += [
                Figure("heat", title, y="layer", value="value", y_title="layer", value_title=called, **over),
                Figure("line", f"{title}, by layer", y="value", by="layer", y_title=called, **over),
            ]
        facts = {
            "training": {"job": job.id, "run": job.document.get("run"), "steps": list(done)},
            "corpus": {"name": self.corpus, "content": corpus.find(self.corpus).content},
            "analysis": self.analysis,
            "reached": reached(table),
            "notes": [f"A layer has reached a measure at the first step with {REACHED:.0%} of what it gains in all."],
        }
        return Result(list(table), figures, facts)


def reached(table: list[dict[str, Value]]) -> dict[str, dict[str, int]]:
    """measure -> layer -> the first step at which it has most of what it gains over all steps; none that gains nothing."""
    curves: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for line in table:
        step, layer, value = line["step"], line["layer"], line["value"]
        if isinstance(step, int) and isinstance(layer, int) and isinstance(value, int | float):
            curves.setdefault((str(line.get("measure", "")), layer), []).append((step, float(value)))
    found: dict[str, dict[str, int]] = {}
    for (measure, layer), curve in curves.items():
        first, best = curve[0][1], max(value for _, value in curve)
        if best > first:
            goal = first + REACHED * (best - first)
            found.setdefault(measure, {})[str(layer)] = next(step for step, value in curve if value >= goal)
    return found


def _left(job: Job, done: list[int]) -> int:
    """Snapshots to be measured: those that are there and, of a training that goes on, those to come."""
    there, status = _steps(job), job.status()
    if status.state.is_over:
        return len(there) - len(done)
    return max(1, len(snapshots(int(status.total)).union(there).difference(done)))


def _steps(job: Job) -> list[int]:
    """The steps of the snapshots that are whole, in order."""
    cards = (job.folder / "artifacts" / "steps").glob("*/card.json")
    return sorted(int(card.parent.name) for card in cards)
