"""One step of a training: the loss of a batch, its gradient, and weights that are moved by it."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from engine import ranks
from engine.errors import Refused
from engine.memory import ran_out
from engine.training import optimizers
from engine.training.plan import Loss, Plan, Trainee

SMALLEST_SCALE = 2.0**-10  # of float16: below it no gradient is left to be saved by scaling


class Stepper:
    """A module, what moves its weights, and the number format it computes with."""

    def __init__(self, module: Trainee, plan: Plan, device: torch.device) -> None:
        self.plan, self.device = plan, device
        self.module = module.to(device)
        for part in module.modules():
            if hasattr(part, "recompute"):
                setattr(part, "recompute", plan.recompute)  # noqa: B010
        self.optimizer = optimizers.make(module, plan.optimizer, plan.rate, plan.decay, plan.betas, plan.epsilon)
        self.accelerator = _accelerator(plan, device)
        self.wrapped, self._mover = self.accelerator.prepare(module, self.optimizer)

    def step(self, step: int, parts: Sequence[Any], weight: float) -> dict[str, float] | None:
        """Learn from a batch in parts; the mean loss and what is shown beside it. None where memory ran out.

        Then nothing has been learnt, and the step can be done again in more parts. `weight` is 0 for a batch that is only
        computed beside those of other processes.
        """
        begun = [buffer.clone() for buffer in self.module.buffers()]
        found = self._gradients(parts, weight)
        if found is None:
            self._undo(begun)
            return None
        sums, counted = found
        count, *rest = ranks.sums([counted, *sums.values()], self.device)
        told = {name: value / count for name, value in zip(sums, rest, strict=True)}
        if not np.isfinite(told["loss"]):
            raise Refused(self._broke_down(step, "loss"))
        rate = self.plan.rate_at(step)
        return {**told, "gradient": self._move(step, rate, count), "rate": rate}

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        scaler = self.accelerator.scaler
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def _gradients(self, parts: Sequence[Any], weight: float) -> tuple[dict[str, float], float] | None:
        sums: dict[str, float] = {}
        counted = 0.0
        try:
            for number, part in enumerate(parts):
                with nullcontext() if number + 1 == len(parts) else self.accelerator.no_sync(self.wrapped):
                    loss: Loss = self.wrapped(part)
                    self.accelerator.backward(loss.total * weight)
                for name, value in {"loss": loss.total / loss.count, **loss.shown}.items():
                    sums[name] = sums.get(name, 0.0) + float(value.detach()) * loss.count * weight
                counted += loss.count * weight
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            return None  # the error holds what filled the memory: it must be gone before anything is tried again
        return sums, counted

    def _undo(self, buffers: Sequence[torch.Tensor]) -> None:
        self._mover.zero_grad()
        with torch.no_grad():
            for buffer, before in zip(self.module.buffers(), buffers, strict=True):
                buffer.copy_(before)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _move(self, step: int, rate: float, count: float) -> float:
        """Move the weights along the mean gradient; the norm that it had."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for parameter in self.wrapped.parameters():
            if parameter.grad is not None:
                parameter.grad *= ranks.world() / count  # several processes have taken the mean of their sums
        norm = float(self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.plan.clip))
        # Under float16 an overflow is ordinary: the scaler skips the step and halves its scale.
        scaler = self.accelerator.scaler
        if not np.isfinite(norm) and (scaler is None or scaler.get_scale() < SMALLEST_SCALE):
            raise Refused(self._broke_down(step, "gradient"))
        self._mover.step()
        self._mover.zero_grad()
        return norm

    def _broke_down(self, step: int, what: str) -> str:
        return (
            f"The {what} of step {step + 1} is not a number any more, so the training was stopped; the last checkpoint "
            f"before it is kept. Try a learning rate below {self.plan.rate:g} or a longer warm-up."
        )


def _accelerator(plan: Plan, device: torch.device) -> Any:
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState, GradientState

    # Accelerate remembers the precision and device of the first training of a process; each of ours chooses its own.
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    mixed = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[plan.precision]
    # Blocks that are left out of a step have no gradient.
    dropping = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(mixed_precision=mixed, cpu=device.type == "cpu", device_placement=False, kwargs_handlers=[dropping])
