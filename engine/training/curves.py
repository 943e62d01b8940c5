"""What a training tells while it goes: its numbers, how fast it is, and the same for TensorBoard."""

import time
from collections.abc import Callable
from contextlib import suppress

import torch

from engine import memory, ranks
from engine.events import Event
from engine.run import Context
from engine.training.saves import with_room
from engine.training.tensorboard import EventFile

PACE_SECONDS = 5.0  # from one look at the speed to the next


class Curves:
    """The curves of a training that goes on at a step; what an attempt before this told of later steps is told again."""

    def __init__(self, ctx: Context, step: int) -> None:
        self.ctx = ctx
        self.pace: dict[str, float] = {}  # as it was last
        self._file: EventFile | None = None
        self._steps, self._sound, self._waited = 0, 0.0, 0.0
        self._since = time.monotonic()
        if not ranks.rank():
            with_room(lambda: self._begin(step), "the curves", ctx)

    def tell(self, step: int, values: dict[str, float]) -> None:
        """Numbers that the same training always tells at this step."""
        with_room(lambda: self.ctx.metric(step, **values), "the curves", self.ctx)
        self._draw(time.time(), step, values)

    def count(self, seconds: float, waited: float) -> None:
        """A step was done, with so many seconds of sound; it had to wait so long for them."""
        self._steps += 1
        self._sound += seconds
        self._waited += waited

    def tell_pace(self, step: int, *, at_once: bool = False) -> None:
        """How fast it goes and what it takes, now and then."""
        passed = time.monotonic() - self._since
        if not self._steps or (passed < PACE_SECONDS and not (at_once and not self.pace)):
            return
        self.pace = {
            "steps_per_second": self._steps / passed,
            "waiting": self._waited / passed,
            **({"sound_per_second": self._sound / passed} if self._sound else {}),
            **memory.held(self.ctx.device),
            **_use(self.ctx.device),
        }
        self._steps, self._sound, self._waited, self._since = 0, 0.0, 0.0, time.monotonic()
        with_room(lambda: self.ctx.pace(step, **self.pace), "the curves", self.ctx)
        self._draw(time.time(), step, self.pace)

    def _begin(self, step: int) -> None:
        """Write the file anew with all that still holds, so that no step is in it twice."""
        folder = self.ctx.folder / "tensorboard"
        before = list(folder.glob("*tfevents*")) if folder.exists() else []
        kept: dict[tuple[str, int], Event] = {}
        for event in self.ctx.log.read()[0]:
            if event.kind in {"metric", "pace"} and int(event.values["step"]) <= step:
                kept[event.kind, int(event.values["step"])] = event
        # A name of its own, so that a TensorBoard that looks on sees a new file.
        self._file = EventFile(folder / f"events.out.tfevents.{time.time_ns()}.auscult")
        for (_, told), event in sorted(kept.items(), key=lambda item: item[0][1]):
            self._draw(event.time, told, {name: value for name, value in event.values.items() if name != "step"})
        for old in before:
            old.unlink(missing_ok=True)

    def _draw(self, seconds: float, step: int, values: dict[str, float]) -> None:
        file = self._file
        if file is not None:
            with_room(
                lambda: file.add(seconds, step, {_tag(name): value for name, value in values.items()}),
                "the curves",
                self.ctx,
            )


def _tag(name: str) -> str:
    """TensorBoard puts curves together that share what stands before the stroke."""
    if name.startswith("valid_"):
        return f"{name.removeprefix('valid_')}/valid"
    return f"{name}/train"


def _use(device: torch.device) -> dict[str, float]:
    if device.type != "cuda":
        return {}
    use: Callable[[torch.device], int] = torch.cuda.utilization
    with suppress(Exception):  # it needs a package and a driver that not every machine has
        return {"gpu_use": float(use(device))}
    return {}
