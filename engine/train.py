"""The one training loop: pretexts and tasks alike. A run that is killed and resumed gives the losses of one that was not.

Nothing of it depends on what was drawn before: every step begins with generators that are a function of seed and step.
So the place in the data is a step, and a step that is done again, in more parts or by more processes gives the same.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from engine import optimizers, ranks
from engine.errors import Cancelled, Interrupted, Refused
from engine.optimizers import Optimizer, Schedule
from engine.precision import Precision, check
from engine.run import Context, RunSpec, Value
from engine.saves import Checkpoints


@dataclass(frozen=True)
class Loss:
    """What a batch cost: a sum, so that parts of a batch add up to the whole."""

    total: Tensor  # over everything that was guessed
    count: float  # of what was guessed
    shown: dict[str, Tensor] = field(default_factory=dict)  # other numbers that are shown beside it: means over the batch

    @classmethod
    def mean(cls, values: Tensor, **shown: Tensor) -> "Loss":
        """The mean of these values is minimised."""
        return cls(values.sum(), float(values.numel()), shown)


class Trainee(nn.Module, ABC):
    """What the loop trains."""

    @abstractmethod
    def forward(self, batch: Any) -> Loss:
        """The loss of what `load` gave."""

    def begin(self, step: int, steps: int) -> None:
        """Called before each step, counted from 0: for what follows a schedule of its own. The step alone must decide."""

    def stepped(self) -> None:
        """Called after the weights have moved: for teachers that follow them. What it changes must be in the state dict."""

    def unwell(self, told: dict[str, float]) -> str:
        """A sentence where these numbers (the mean loss, and what is shown beside it) tell of an illness; else empty."""
        return ""


@dataclass(frozen=True)
class Plan:
    """How a training goes."""

    steps: int
    rate: float  # the highest learning rate
    warm_up: float = 0.07  # share of the steps in which the rate rises
    schedule: Schedule = "line"  # and what it does then: falls to zero in a line or as a cosine, stays, or falls at the end
    fall: float = 0.07  # share of the steps in which `hold` falls
    optimizer: Optimizer = "AdamW"
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    clip: float = 5.0  # largest gradient norm
    decay: float = 0.01  # weight decay; none for biases and norms
    precision: Precision = "float32"
    parts: int = 1  # in which each batch is computed, one after the other
    checkpoint_every: int = 200
    validate_every: int = 100
    seed: int = 0
    identity: str = ""  # what is trained: a checkpoint of something else is refused

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return optimizers.rate_at(step, self.steps, self.rate, self.warm_up, self.schedule, self.fall)

    @property
    def tell_every(self) -> int:
        """Steps from one recorded loss to the next: about 500 in a training."""
        return max(1, self.steps // 500)


class Training(RunSpec):
    """The settings of the loop that every training shares."""

    steps: int = Field(100_000, ge=1, le=10_000_000, description="Batches to learn from.")
    rate: float = Field(1e-4, gt=0, le=1, description="Highest learning rate.")
    optimizer: Optimizer = Field("AdamW", description="What moves the weights.", json_schema_extra={"advanced": True})
    schedule: Schedule = Field(
        "line",
        description="What the rate does when it has risen: fall to zero in a line, as a cosine or only at the end; or stay.",
        json_schema_extra={"advanced": True},
    )
    fall: float = Field(
        0.07,
        gt=0,
        le=1,
        description="Share of the steps in which the rate falls at the end.",
        json_schema_extra={"advanced": True, "when": {"schedule": "hold"}},
    )
    warm_up: float = Field(
        0.07, ge=0, le=1, description="Share of the steps in which the rate rises.", json_schema_extra={"advanced": True}
    )
    beta: float = Field(
        0.999, gt=0, lt=1, description="Memory of the optimizer's second moment.", json_schema_extra={"advanced": True}
    )
    epsilon: float = Field(
        1e-8, gt=0, le=1e-2, description="What keeps its divisions finite.", json_schema_extra={"advanced": True}
    )
    decay: float = Field(
        0.01, ge=0, le=1, description="Weight decay; biases and norms have none.", json_schema_extra={"advanced": True}
    )
    clip: float = Field(5.0, gt=0, description="Largest gradient norm.", json_schema_extra={"advanced": True})
    parts: int = Field(
        1,
        ge=1,
        le=1024,
        description="Parts in which a batch is computed, one after the other, to need less memory.",
        json_schema_extra={"advanced": True},
    )
    processes: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes that share each batch; every one takes a GPU where there are GPUs.",
        json_schema_extra={"advanced": True},
    )
    precision: Precision = Field(
        "float32", description="Number format of the matrix products.", json_schema_extra={"advanced": True}
    )
    checkpoint_every: int = Field(
        1000, ge=1, description="Steps from one checkpoint to the next.", json_schema_extra={"advanced": True}
    )
    validate_every: int = Field(
        1000, ge=1, description="Steps from one validation to the next.", json_schema_extra={"advanced": True}
    )

    @property
    def together(self) -> int:
        return self.processes

    def plan(self) -> Plan:
        """How this training goes."""
        return Plan(
            self.steps,
            self.rate,
            self.warm_up,
            self.schedule,
            self.fall,
            self.optimizer,
            (0.9, self.beta),
            self.epsilon,
            self.clip,
            self.decay,
            self.precision,
            self.parts,
            self.checkpoint_every,
            self.validate_every,
            self.seed,
            self.key,
        )


@dataclass
class Fit:
    """What a training left behind; the module that was given holds the last weights."""

    history: list[dict[str, float]] = field(default_factory=list)  # each: step and the numbers told then
    best: float | None = None  # of the validation number that was watched
    best_step: int = 0
    best_weights: dict[str, Tensor] | None = None


def fit(
    module: Trainee,
    order: Callable[[int], list[int]],
    load: Callable[[list[int], int], Any],
    plan: Plan,
    ctx: Context,
    *,
    validate: Callable[[], dict[str, float]] | None = None,
    watch: str = "",
    higher_is_better: bool = False,
    folder: str = "checkpoints",
) -> Fit:
    """Train `module`, whose call takes what `load` gives for some clips of a step and returns their loss.

    `order(step)` says which clips are the batch of a step; it and `load(clips, step)` must depend on nothing else, and run
    one step ahead on a thread. What the module draws while it computes comes from torch's, numpy's or Python's global
    generators, or from generators of its own that begin with seed, step and clip. `watch` names the validation number
    whose best weights are kept.
    """
    if slow := check(plan.precision, ctx.device):
        ctx.note(slow)
    accelerator = _accelerator(plan.precision, ctx.device)
    module.to(ctx.device).train()
    optimizer = optimizers.make(module, plan.optimizer, plan.rate, plan.decay, plan.betas, plan.epsilon)
    wrapped, stepper = accelerator.prepare(module, optimizer)
    fitted = Fit()
    checkpoints = Checkpoints(ctx.folder / folder)
    step = 0
    state = checkpoints.newest(ctx.device)
    if state is not None:
        if state["identity"] != plan.identity:
            raise Refused(
                "The checkpoints of this run were made with other settings. Start a new run instead of resuming this one."
            )
        step = _restore(state, module, optimizer, accelerator, fitted)
        if state["processes"] != ranks.world():
            made = "1 process" if state["processes"] == 1 else f"{state['processes']} processes"
            ctx.note(
                f"The checkpoint of step {step} was made by {made}; it goes on with {ranks.world()}. "
                "The batches are the same, so the losses agree to rounding."
            )

    def save() -> None:
        checkpoints.write(step, _state(step, plan, module, optimizer, accelerator, fitted))

    def mine(step: int) -> list[int]:
        return order(step)[ranks.rank() :: ranks.world()]

    def batch(step: int) -> list[Any]:
        clips = mine(step) or order(step)[:1]  # with nothing to do it computes beside the others, for nothing
        count = min(plan.parts, len(clips))
        return [load(clips[part::count], step) for part in range(count)]

    saved = step
    said: set[str] = set()
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(batch, step) if step < plan.steps else None
        try:
            while step < plan.steps and coming is not None:
                _agreed(ctx, step, plan)
                parts = coming.result()
                coming = ahead.submit(batch, step + 1) if step + 1 < plan.steps else None
                seed_all(seed_of(plan.seed, step, ranks.rank()))
                module.begin(step, plan.steps)
                told = _step(wrapped, stepper, optimizer, accelerator, parts, float(bool(mine(step))), plan, step, ctx)
                module.stepped()
                step += 1
                last = step == plan.steps
                validates = validate is not None and (step % plan.validate_every == 0 or last)
                if validate is not None and validates:
                    told.update(_validated(module, validate, plan.seed))
                    _keep_best(fitted, module, told, step, watch, higher_is_better)
                if step % plan.tell_every == 0 or last or validates:
                    fitted.history.append({"step": step, **told})
                    ctx.metric(step, **told)
                    sentence = module.unwell(told)
                    if sentence and sentence not in said:
                        said.add(sentence)
                        ctx.note(f"At step {step}: {sentence}")
                if step % plan.checkpoint_every == 0 or last:
                    save()
                    saved = step
        except (Cancelled, Interrupted):
            if step > saved:
                save()
            raise
    ctx.progress(plan.steps, plan.steps, "training")
    module.eval()
    return fitted


def _agreed(ctx: Context, step: int, plan: Plan) -> None:
    """Tell how far it is, and stop where that is asked for: the first process hears of it, and all stop at one step."""
    stop: Cancelled | Interrupted | None = None
    try:
        ctx.progress(step, plan.steps, "training")
    except (Cancelled, Interrupted) as asked:
        stop = asked
    if ranks.sums([float(stop is not None)], ctx.device)[0]:
        raise stop or Interrupted("The first process was asked to stop.")


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


def seed_all(seed: int) -> None:
    """Set every generator that a training may draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def seed_of(*numbers: int) -> int:
    """A seed that depends on all of these numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint32)[0])


def _accelerator(precision: Precision, device: torch.device) -> Any:
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState, GradientState

    # Accelerate remembers the precision and device of the first training of a process; each of ours chooses its own.
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    mixed = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[precision]
    dropping = DistributedDataParallelKwargs(
        find_unused_parameters=True
    )  # blocks that are left out of a step have no gradient
    return Accelerator(mixed_precision=mixed, cpu=device.type == "cpu", device_placement=False, kwargs_handlers=[dropping])


def _step(
    wrapped: nn.Module,
    stepper: Any,
    optimizer: torch.optim.Optimizer,
    accelerator: Any,
    parts: list[Any],
    weight: float,
    plan: Plan,
    step: int,
    ctx: Context,
) -> dict[str, float]:
    rate = plan.rate_at(step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    sums: dict[str, float] = {}
    counted = 0.0
    for number, part in enumerate(parts):
        with nullcontext() if number + 1 == len(parts) else accelerator.no_sync(wrapped):
            loss: Loss = wrapped(part)
            accelerator.backward(loss.total * weight)
        for name, value in {"loss": loss.total / loss.count, **loss.shown}.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach()) * loss.count * weight
        counted += loss.count * weight
    count, *rest = ranks.sums([counted, *sums.values()], ctx.device)
    told = {name: value / count for name, value in zip(sums, rest, strict=True)}
    if not np.isfinite(told["loss"]):
        raise Refused(_broke_down(step, plan, "loss"))
    for parameter in wrapped.parameters():
        if parameter.grad is not None:
            parameter.grad *= ranks.world() / count  # several processes have taken the mean of their sums
    norm = float(accelerator.clip_grad_norm_(wrapped.parameters(), plan.clip))
    # Under float16 an overflow is ordinary: the scaler skips the step and halves its scale.
    if not np.isfinite(norm) and plan.precision != "float16":
        raise Refused(_broke_down(step, plan, "gradient"))
    stepper.step()
    stepper.zero_grad()
    return {**told, "gradient": norm, "rate": rate}


def _broke_down(step: int, plan: Plan, what: str) -> str:
    return (
        f"The {what} of step {step + 1} is not a number any more, so the training was stopped; the last checkpoint "
        f"before it is kept. Try a learning rate below {plan.rate:g} or a longer warm-up."
    )


def _validated(module: nn.Module, validate: Callable[[], dict[str, float]], seed: int) -> dict[str, float]:
    with torch.no_grad():
        seed_all(seed)  # the same masks at every validation
        module.eval()
        values = validate()
        module.train()
    return values


def _keep_best(
    fitted: Fit, module: nn.Module, told: dict[str, float], step: int, watch: str, higher_is_better: bool
) -> None:
    if not watch or watch not in told:
        return
    value = told[watch]
    if fitted.best is None or (value > fitted.best if higher_is_better else value < fitted.best):
        fitted.best, fitted.best_step = value, step
        fitted.best_weights = {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}


def _state(
    step: int, plan: Plan, module: nn.Module, optimizer: torch.optim.Optimizer, accelerator: Any, fitted: Fit
) -> dict[str, Any]:
    return {
        "identity": plan.identity,
        "processes": ranks.world(),
        "step": step,
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": accelerator.scaler.state_dict() if accelerator.scaler is not None else {},
        "history": fitted.history,
        "best": [fitted.best, fitted.best_step, fitted.best_weights],
    }


def _restore(
    state: dict[str, Any], module: nn.Module, optimizer: torch.optim.Optimizer, accelerator: Any, fitted: Fit
) -> int:
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    if state["scaler"] and accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(state["scaler"])
    fitted.history = state["history"]
    fitted.best, fitted.best_step, fitted.best_weights = state["best"]
    step: int = state["step"]
    return step
