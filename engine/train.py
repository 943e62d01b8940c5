"""The one training loop: pretexts and tasks alike. A run that is killed and resumed gives the losses of one that was not."""

import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from engine.errors import Cancelled, Interrupted, Refused
from engine.precision import Precision, check
from engine.run import Context, RunSpec, Value

KEPT = 2  # checkpoints of a run that stay on disk


@dataclass(frozen=True)
class Plan:
    """How a training goes."""

    steps: int
    rate: float  # the highest learning rate
    warm_up: float = 0.07  # share of the steps in which the rate rises; then it falls to zero in a straight line
    clip: float = 5.0  # largest gradient norm
    decay: float = 0.01  # weight decay; none for biases and norms
    precision: Precision = "float32"
    checkpoint_every: int = 200
    validate_every: int = 100
    seed: int = 0
    identity: str = ""  # what is trained: a checkpoint of something else is refused

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        rising = max(1, round(self.warm_up * self.steps))
        if step < rising:
            return self.rate * (step + 1) / rising
        return self.rate * (self.steps - step) / max(1, self.steps - rising)

    @property
    def tell_every(self) -> int:
        """Steps from one recorded loss to the next: about 500 in a training."""
        return max(1, self.steps // 500)


class Training(RunSpec):
    """The settings of the loop that every training shares."""

    warm_up: float = Field(
        0.07, ge=0, le=1, description="Share of the steps in which the rate rises.", json_schema_extra={"advanced": True}
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

    def plan(self, steps: int, rate: float, clip: float) -> Plan:
        """How this training goes."""
        return Plan(
            steps,
            rate,
            self.warm_up,
            clip,
            precision=self.precision,
            checkpoint_every=self.checkpoint_every,
            validate_every=self.validate_every,
            seed=self.seed,
            identity=self.key,
        )


@dataclass
class Fit:
    """What a training left behind; the module that was given holds the last weights."""

    history: list[dict[str, float]] = field(default_factory=list)  # each: step and the numbers told then
    best: float | None = None  # of the validation number that was watched
    best_step: int = 0
    best_weights: dict[str, Tensor] | None = None


class Order:
    """Which clips make the batch of each step: a pure function of seed and step, so that a place in the data is a step."""

    def __init__(self, lengths: Sequence[float], budget: float, seed: int) -> None:
        self.lengths = np.asarray(lengths, dtype=float)
        self.budget = budget  # of a batch, padding included, in the unit of the lengths
        self.seed = seed
        self._epochs: list[int] = []  # first step of each epoch met so far
        self._batches: list[list[int]] = []

    def __call__(self, step: int) -> list[int]:
        """Indices of the clips of a step."""
        if not self._epochs or step < self._epochs[-1]:
            self._epochs, self._batches = [0], self._deal(0)
        while step >= self._epochs[-1] + len(self._batches):
            self._epochs.append(self._epochs[-1] + len(self._batches))
            self._batches = self._deal(len(self._epochs) - 1)
        return self._batches[step - self._epochs[-1]]

    def _deal(self, epoch: int) -> list[list[int]]:
        generator = np.random.default_rng((self.seed, epoch))
        # Clips of about one length share a batch; a jitter of ten percent keeps the company changing.
        key = self.lengths * generator.uniform(0.9, 1.1, len(self.lengths))
        batches: list[list[int]] = []
        longest = 0.0
        for index in np.argsort(key, kind="stable"):
            longest = max(longest, self.lengths[index])
            if batches and longest * (len(batches[-1]) + 1) <= self.budget:
                batches[-1].append(int(index))
            else:
                batches.append([int(index)])
                longest = self.lengths[index]
        generator.shuffle(batches)
        return batches


def fit(
    module: nn.Module,
    batch: Callable[[int], Any],
    plan: Plan,
    ctx: Context,
    *,
    validate: Callable[[], dict[str, float]] | None = None,
    watch: str = "",
    higher_is_better: bool = False,
) -> Fit:
    """Train `module`, whose call takes what `batch(step)` gives and returns losses, of which "loss" is minimised.

    `batch` must depend on the step alone; it runs one step ahead on a thread. What the module draws at random while it
    computes comes from torch's, numpy's or Python's global generators, whose states are part of every checkpoint.
    `watch` names the validation number whose best weights are kept.
    """
    if slow := check(plan.precision, ctx.device):
        ctx.note(slow)
    accelerator = _accelerator(plan.precision, ctx.device)
    module.to(ctx.device).train()
    optimizer = torch.optim.AdamW(_groups(module, plan.decay), lr=plan.rate)
    wrapped, stepper = accelerator.prepare(module, optimizer)
    fitted = Fit()
    checkpoints = Checkpoints(ctx.folder / "checkpoints")
    step = 0
    state = checkpoints.newest(ctx.device)
    if state is not None:
        if state["identity"] != plan.identity:
            raise Refused(
                "The checkpoints of this run were made with other settings. Start a new run instead of resuming this one."
            )
        step = _restore(state, module, optimizer, accelerator, fitted)
    else:
        seed_all(plan.seed)

    def save() -> None:
        checkpoints.write(step, _state(step, plan, module, optimizer, accelerator, fitted))

    saved = step
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(batch, step) if step < plan.steps else None
        try:
            while step < plan.steps and coming is not None:
                ctx.progress(step, plan.steps, "training")
                inputs = coming.result()
                coming = ahead.submit(batch, step + 1) if step + 1 < plan.steps else None
                told = _step(wrapped, stepper, optimizer, accelerator, inputs, plan, step)
                step += 1
                last = step == plan.steps
                validates = validate is not None and (step % plan.validate_every == 0 or last)
                if validate is not None and validates:
                    told.update(_validated(module, validate, plan.seed, ctx.device))
                    _keep_best(fitted, module, told, step, watch, higher_is_better)
                if step % plan.tell_every == 0 or last or validates:
                    fitted.history.append({"step": step, **told})
                    ctx.metric(step, **told)
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
    np.random.seed(seed)
    torch.manual_seed(seed)


class Checkpoints:
    """The saved states of one training, newest last; each is whole or absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def newest(self, device: torch.device) -> dict[str, Any] | None:
        """The state to go on from; None at the beginning."""
        for file in reversed(self._files()):
            try:
                state: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
            except Exception as error:  # a damaged file fails in many ways
                raise Refused(f"The checkpoint {file} is damaged. Delete it to go on from the one before it.") from error
            return state
        return None

    def write(self, step: int, state: dict[str, Any]) -> None:
        """Write beside, then rename; then drop what is too old."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for stray in self.folder.glob(".*.tmp"):
            stray.unlink(missing_ok=True)
        file = self.folder / f"step-{step:09d}.pt"
        beside = self.folder / f".{file.name}.{os.getpid()}.tmp"
        try:
            with beside.open("wb") as handle:
                torch.save(state, handle)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(beside, file)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            beside.unlink(missing_ok=True)
            raise Refused(
                f"The checkpoint of step {step} could not be written to {self.folder}: {error}. Make room on the disk and "
                "resume; the checkpoint before it is whole."
            ) from error
        for old in self._files()[:-KEPT]:
            old.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pt")) if self.folder.exists() else []


def _accelerator(precision: Precision, device: torch.device) -> Any:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    # Accelerate remembers the precision and device of the first training of a process; each of ours chooses its own.
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    mixed = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[precision]
    return Accelerator(mixed_precision=mixed, cpu=device.type == "cpu", device_placement=False)


def _groups(module: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weights with decay, biases and norms without."""
    learnt = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in learnt if parameter.dim() > 1], "weight_decay": decay},
        {"params": [parameter for parameter in learnt if parameter.dim() <= 1], "weight_decay": 0.0},
    ]


def _step(
    wrapped: nn.Module, stepper: Any, optimizer: torch.optim.Optimizer, accelerator: Any, inputs: Any, plan: Plan, step: int
) -> dict[str, float]:
    rate = plan.rate_at(step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    losses: dict[str, Tensor] = wrapped(inputs)
    told = {name: float(value.detach()) for name, value in losses.items()}
    if not np.isfinite(told["loss"]):
        raise Refused(_broke_down(step, plan, "loss"))
    accelerator.backward(losses["loss"])
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


def _validated(
    module: nn.Module, validate: Callable[[], dict[str, float]], seed: int, device: torch.device
) -> dict[str, float]:
    # The same masks at every validation, and no trace of it in the training's own draws.
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
        torch.manual_seed(seed)
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
    kind, keys, *rest = np.random.get_state(legacy=True)
    version, numbers, spare = random.getstate()
    return {
        "identity": plan.identity,
        "step": step,
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": accelerator.scaler.state_dict() if accelerator.scaler is not None else {},
        "history": fitted.history,
        "best": [fitted.best, fitted.best_step, fitted.best_weights],
        "random": {
            "python": [version, list(numbers), spare],
            "numpy": [str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), *(float(value) for value in rest)],
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        },
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
    drawn = state["random"]
    version, numbers, spare = drawn["python"]
    random.setstate((version, tuple(numbers), spare))
    kind, keys, position, has_gauss, cached = drawn["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), int(position), int(has_gauss), cached))
    torch.set_rng_state(drawn["torch"].cpu())
    if drawn["cuda"]:
        torch.cuda.set_rng_state_all([one.cpu() for one in drawn["cuda"]])
    step: int = state["step"]
    return step
