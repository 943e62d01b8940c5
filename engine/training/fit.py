"""The one training loop: pretexts and tasks alike. A run that is killed and resumed gives the losses of one that was not.

Nothing of it depends on what was drawn before: every step begins with generators that are a function of seed and step.
So the place in the data is a step, and a step that is done again, in more parts or by more processes gives the same.
"""

import math
import re
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from engine import ranks
from engine.errors import Cancelled, Interrupted, Refused
from engine.precision import check
from engine.run import Context, Value
from engine.training.average import Average
from engine.training.curves import Curves
from engine.training.plan import Plan, Trainee, seed_all, seed_of, snapshots
from engine.training.saves import Checkpoints, changes, with_room
from engine.training.stepping import Stepper

DOUBLINGS = 5  # of the parts of a batch, where memory runs out
FREE = {"parts", "processes", "recompute", "checkpoint_every", "snapshots"}  # settings that change nothing of what is learnt

Order = Callable[[int], list[int]]  # which clips are the batch of a step
Load = Callable[[list[int], int], Any]  # what the module takes of some clips at a step


@dataclass
class Fit:
    """What a training left behind; the module that was given holds the last weights, or their running mean."""

    history: list[dict[str, float]] = field(default_factory=list)  # each: step and the numbers told then
    best: float | None = None  # of the validation number that was watched
    best_step: int = 0
    missed: int = 0  # validations since the best one
    ended: bool = False  # early, because nothing got better
    best_weights: dict[str, Tensor] | None = None
    pace: dict[str, float] = field(default_factory=dict)  # steps and sound in a second, memory


def fit(
    module: Trainee,
    order: Order,
    load: Load,
    plan: Plan,
    ctx: Context,
    *,
    validate: Callable[[], dict[str, float]] | None = None,
    watch: str = "",
    higher_is_better: bool = False,
    seconds: Callable[[list[int]], float] = lambda clips: 0.0,
    keep: Callable[[int], None] = lambda step: None,
    folder: str = "checkpoints",
    begun: int = 0,
) -> Fit:
    """Train `module`, whose call takes what `load` gives for some clips of a step and returns their loss.

    `order(step)` says which clips are the batch of a step; it and `load(clips, step)` must depend on nothing else, and run
    one step ahead on a thread. What the module draws while it computes comes from torch's, numpy's or Python's global
    generators, or from generators of its own that begin with seed, step and clip. `watch` names the validation number
    whose best weights are kept. `seconds` says how much sound some clips are; `keep` is called after the steps 0, 1, 2, 4, 8
    ... and the last where the plan wants snapshots. `begun` steps were taken by trainings before this one: they count.
    """
    return _Loop(module, order, load, plan, ctx, validate, (watch, higher_is_better), seconds, keep, folder, begun).run()


@dataclass(frozen=True)
class _Batch:
    clips: list[int]  # of all processes
    mine: int  # how many of them are this one's
    parts: list[Any]


class _Loop:
    def __init__(
        self,
        module: Trainee,
        order: Order,
        load: Load,
        plan: Plan,
        ctx: Context,
        validate: Callable[[], dict[str, float]] | None,
        watch: tuple[str, bool],
        seconds: Callable[[list[int]], float],
        keep: Callable[[int], None],
        folder: str,
        begun: int,
    ) -> None:
        self.module, self.order, self.load, self.plan, self.ctx = module, order, load, plan, ctx
        self.validate, self.seconds, self.keep, self.begun = validate, seconds, keep, begun
        self.watch, self.higher_is_better = watch
        if slow := check(plan.precision, ctx.device):
            ctx.note(slow)
        self.stepper = Stepper(module, plan, ctx.device)
        module.train()
        self.average = Average(module, plan.average) if plan.average else None
        self.checkpoints = Checkpoints(ctx.folder / folder)
        self.fitted = Fit()
        self.parts = plan.parts
        self.step = 0
        self.untold: dict[str, float] | None = None  # the numbers of a step that is done, while it is not concluded
        self.said: set[str] = set()
        if (state := self.checkpoints.newest(ctx.note)) is not None:
            self._restore(state)
        self.saved = self.step
        self.curves = Curves(ctx, begun + self.step)

    def run(self) -> Fit:
        if self.step == 0:
            self._snapshot()
        try:
            with ThreadPoolExecutor(1) as ahead:
                self._learn(ahead)
        except (Cancelled, Interrupted):
            if self.step > self.saved:
                with suppress(OSError):  # a full disk
                    self.checkpoints.write(self.step, self._state())
            raise
        self.ctx.progress(self.plan.steps, self.plan.steps, "training")
        self.curves.tell_pace(self.begun + self.step, at_once=True)
        if self.average is not None:
            self.average.give(self.module)
        self.module.eval()
        return self._finished()

    def _learn(self, ahead: ThreadPoolExecutor) -> None:
        plan = self.plan
        coming: Future[_Batch] | None = None
        if self.untold is not None:
            self._conclude(self.untold)
        while self.step < plan.steps and not self.fitted.ended:
            self._agree()
            began = time.monotonic()
            batch = (coming or ahead.submit(self._batch, self.step)).result()
            self.curves.count(self.seconds(batch.clips), time.monotonic() - began)
            coming = ahead.submit(self._batch, self.step + 1) if self.step + 1 < plan.steps else None
            count = self.parts
            told = self._told(batch, ahead)
            if self.parts > count and coming is not None:
                coming.cancel()  # it is in too few parts
                coming = ahead.submit(self._batch, self.step + 1)
            if self.average is not None:
                self.average.follow(self.module)
            self.step += 1
            self.untold = told
            self._conclude(told)

    def _conclude(self, told: dict[str, float]) -> None:
        """Everything that follows a step. Where it is stopped in the middle, a resumed training does it all again."""
        plan = self.plan
        last = self.step == plan.steps
        validates = self.validate is not None and (self.step % plan.validate_every == 0 or last)
        if validates and self.watch not in told:
            self._validate(told)
        if self.step % plan.tell_every == 0 or last or validates:
            self._tell(told)
        self.curves.tell_pace(self.begun + self.step)
        self._snapshot()
        self.untold = None
        if self.step % plan.checkpoint_every == 0 or last or self.fitted.ended:
            self._save()

    def _batch(self, step: int) -> "_Batch":
        """Called on the thread ahead alone: neither the order nor what holds the clips can serve two at once."""
        clips = self.order(step)
        # A process with nothing to do computes beside the others, for nothing.
        mine = clips[ranks.rank() :: ranks.world()] or clips[:1]
        count = min(self.parts, len(mine))
        return _Batch(clips, len(mine), [self.load(mine[part::count], step) for part in range(count)])

    def _told(self, batch: "_Batch", ahead: ThreadPoolExecutor) -> dict[str, float]:
        """Do the step, in more parts where memory runs out. It draws what it would have drawn."""
        step, plan = self.step, self.plan
        weight = float(ranks.rank() < len(batch.clips))
        for _ in range(DOUBLINGS + 1):
            seed_all(seed_of(plan.seed, step, ranks.rank()))
            self.module.begin(step, plan.steps)
            if (told := self.stepper.step(step, batch.parts, weight)) is not None:
                self.module.stepped()
                return told
            if len(batch.parts) == batch.mine or ranks.world() > 1:
                break  # each part is one clip, or the others cannot know that this process begins anew
            self.parts *= 2
            self.ctx.note(
                f"Memory ran out at step {self.begun + step + 1}: from here each batch is computed in {self.parts} parts, "
                "one after the other. What is learnt is the same, to rounding."
            )
            batch = ahead.submit(self._batch, step).result()
        raise Refused(
            f"There is not enough memory for step {self.begun + step + 1}, even in {len(batch.parts)} parts. Choose a "
            "smaller network, less sound in a batch, shorter clips, or recompute."
        )

    def _agree(self) -> None:
        """Tell how far it is, and stop where that is asked for: the first process hears of it, and all stop at one step."""
        stop: Cancelled | Interrupted | None = None
        try:
            with_room(lambda: self.ctx.progress(self.step, self.plan.steps, "training"), "its progress", self.ctx)
        except (Cancelled, Interrupted) as asked:
            stop = asked
        if ranks.sums([float(stop is not None)], self.ctx.device)[0]:
            raise stop or Interrupted("The first process was asked to stop.")

    def _validate(self, told: dict[str, float]) -> None:
        assert self.validate is not None
        fitted = self.fitted
        with self._averaged(), torch.no_grad():
            seed_all(self.plan.seed)  # the same draws at every validation
            self.module.eval()
            found = self.validate()
            self.module.train()
            value, step = found.get(self.watch, math.nan), self.begun + self.step
            if self._better(value):
                weights = self.module.state_dict()
                with_room(lambda: self.checkpoints.write_best(step, value, weights), "the best weights", self.ctx)
                fitted.best, fitted.best_step, fitted.missed = value, step, 0
            else:
                fitted.missed += 1
        told.update(found)
        # One process decides for all: they might differ in the last digit.
        enough = self.plan.patience > 0 and fitted.missed >= self.plan.patience and not ranks.rank()
        if ranks.sums([float(enough)], self.ctx.device)[0]:
            fitted.ended = True
            self.ctx.note(
                f"Held-out clips gave nothing better in {fitted.missed} validations, so the training ended at step "
                f"{self.begun + self.step} of {self.begun + self.plan.steps}. The best was step {fitted.best_step}."
            )

    def _better(self, value: float) -> bool:
        best = self.fitted.best
        if best is None:
            return not math.isnan(value)
        return value > best if self.higher_is_better else value < best

    def _averaged(self) -> AbstractContextManager[None]:
        return nullcontext() if self.average is None else self.average.lent(self.module)

    def _tell(self, told: dict[str, float]) -> None:
        step = self.begun + self.step
        self.curves.tell(step, told)
        self.fitted.history.append({"step": step, **told})
        sentence = self.module.unwell(told)
        kind = re.sub(r"\d+", "", sentence)  # the same illness with other numbers
        if sentence and kind not in self.said:
            self.said.add(kind)
            self.ctx.note(f"At step {step}: {sentence}")

    def _snapshot(self) -> None:
        if self.plan.snapshots and (self.step in snapshots(self.plan.steps) or self.fitted.ended):
            with self._averaged():
                with_room(lambda: self.keep(self.begun + self.step), f"the upstream after step {self.step}", self.ctx)

    def _save(self) -> None:
        state = self._state()
        with_room(lambda: self.checkpoints.write(self.step, state), f"the checkpoint of step {self.step}", self.ctx)
        self.saved = self.step

    def _state(self) -> dict[str, Any]:
        fitted, average = self.fitted, self.average
        return {
            "asked": self.plan.asked,
            "processes": ranks.world(),
            "step": self.step,
            "parts": self.parts,
            "untold": self.untold,
            "said": sorted(self.said),
            **self.stepper.state(),
            "average": [average.steps, average.weights] if average is not None else None,
            "history": fitted.history,
            "best": [fitted.best, fitted.best_step, fitted.missed, fitted.ended],
        }

    def _restore(self, state: dict[str, Any]) -> None:
        plan, fitted = self.plan, self.fitted
        if changed := changes(state["asked"], plan.asked, self._free(state["step"])):
            self.ctx.note(changed)
        self.stepper.restore(state)
        if self.average is not None:
            self.average.restore(*state["average"])
        self.step, self.said, fitted.history = state["step"], set(state["said"]), state["history"]
        fitted.best, fitted.best_step, fitted.missed, fitted.ended = state["best"]
        self.parts, self.untold = max(plan.parts, state["parts"]), state["untold"]
        if state["processes"] != ranks.world():
            made = "1 process" if state["processes"] == 1 else f"{state['processes']} processes"
            self.ctx.note(
                f"The checkpoint of step {self.step} was made by {made}; it goes on with {ranks.world()}. "
                "The batches are the same, so the losses agree to rounding."
            )

    def _free(self, step: int) -> set[str]:
        """The settings that may change from here on."""
        plan = self.plan
        # Nothing before the end depends on the number of steps.
        endless = plan.schedule == "steady" and not plan.warm_up and type(self.module).begin is Trainee.begin
        return FREE | {"steps"} if endless and plan.steps >= step else FREE

    def _finished(self) -> Fit:
        fitted = self.fitted
        fitted.pace = self.curves.pace
        ranks.sums([0.0], self.ctx.device)  # the first process has written what all read now
        if fitted.best is not None and (best := self.checkpoints.best()) is not None:
            # Where a resumed run has met other numbers than the one before it, the file knows what it holds.
            fitted.best, fitted.best_step, fitted.best_weights = best["value"], best["step"], best["weights"]
        return fitted


def curve(fitted: Fit) -> list[dict[str, Value]]:
    """The told numbers of a training as a tidy table: one line for each step and split."""
    table: list[dict[str, Value]] = []
    for told in fitted.history:
        step = int(told["step"])
        train = {name: value for name, value in told.items() if not name.startswith("valid_") and name != "step"}
        valid = {name.removeprefix("valid_"): value for name, value in told.items() if name.startswith("valid_")}
        table.append({"step": step, "split": "train", **train})
        if valid:
            table.append({"step": step, "split": "valid", **valid})
    return table
