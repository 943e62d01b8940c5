"""The saved states of a training on disk, and what a full disk does to it: it waits."""

import errno
import os
import time
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from engine import ranks
from engine.errors import Refused
from engine.memory import ran_out
from engine.run import Context

KEPT = 2  # of a training stay on disk
FULL = {errno.ENOSPC, errno.EDQUOT}
LOOK_SECONDS = 5.0  # from one look at a full disk to the next


class Checkpoints:
    """The saved states of one training, newest last, and its best weights; each file is whole or absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._best = folder / "best.pt"

    def newest(self, note: Callable[[str], None]) -> dict[str, Any] | None:
        """The state to go on from, of the newest file that is whole; None at the beginning."""
        damaged: list[Path] = []
        for file in reversed(self._files()):
            try:
                state = _read(file)
            except Exception as error:  # a damaged file fails in many ways
                if ran_out(error):
                    raise
                damaged.append(file)
                continue
            for bad in damaged:
                note(f"The checkpoint {bad.name} is damaged; the training goes on from {file.name}, the newest whole one.")
                bad.unlink(missing_ok=True)
            return state
        if damaged:
            raise Refused(f"Every checkpoint in {self.folder} is damaged. Delete them to begin this training anew.")
        return None

    def write(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the state of a step, then drop what is too old. Of several processes only the first writes."""
        self._write(self.folder / f"step-{step:09d}.pt", state)
        if not ranks.rank():
            for old in self._files()[:-KEPT]:
                old.unlink(missing_ok=True)

    def write_best(self, step: int, value: float, weights: Mapping[str, Any]) -> None:
        """Write the weights that were best so far, in the place of those before."""
        self._write(self._best, {"step": step, "value": value, "weights": weights})

    def best(self) -> dict[str, Any] | None:
        """The best weights, and of which step they are; None where there are none."""
        if not self._best.exists():
            return None
        try:
            return _read(self._best)
        except Exception as error:
            raise Refused(f"The best weights of this training, in {self._best}, are damaged; train anew.") from error

    def _write(self, file: Path, state: Mapping[str, Any]) -> None:
        if ranks.rank():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for stray in self.folder.glob(".*.tmp"):
            stray.unlink(missing_ok=True)
        beside = self.folder / f".{file.name}.{os.getpid()}.tmp"
        handle: _Handle | None = None
        try:
            with beside.open("wb") as opened:
                handle = _Handle(opened)
                torch.save(state, handle)  # type: ignore[arg-type]
                opened.flush()
                os.fsync(opened.fileno())
            os.replace(beside, file)
        except (OSError, RuntimeError) as error:
            beside.unlink(missing_ok=True)
            cause = (handle.error if handle else None) or error
            if isinstance(cause, OSError) and cause.errno in FULL:
                raise cause from error
            raise Refused(
                f"{file.name} could not be written to {self.folder}: {cause}. Mend that and resume; the checkpoint before "
                "it is whole."
            ) from error

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pt")) if self.folder.exists() else []


class _Handle:
    """A file that remembers why it could not be written: torch tells only that it could not."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return int(self._handle.write(data))
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._handle.flush()


def _read(file: Path) -> dict[str, Any]:
    # torch does not look at the sums that its files carry for each part.
    with zipfile.ZipFile(file) as parts:
        if (broken := parts.testzip()) is not None:
            raise Refused(f"{broken} in {file} is damaged.")
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return state


def with_room(write: Callable[[], None], what: str, ctx: Context) -> None:
    """Write something; where the disk is full, say so and wait until there is room, or the run is asked to stop."""
    waits = False
    while True:
        try:
            return write()
        except OSError as error:
            if error.errno not in FULL:
                raise
        if not waits:
            waits = True
            with suppress(OSError):  # there may be no room for this sentence either
                ctx.note(
                    f"The disk is full: there was no room for {what}. The training waits, and goes on by itself once there "
                    "is room; what was saved before is whole."
                )
        until = time.monotonic() + LOOK_SECONDS
        while time.monotonic() < until:
            ctx.check()
            time.sleep(min(0.2, LOOK_SECONDS))


def changes(before: Mapping[str, Any], now: Mapping[str, Any], free: set[str]) -> str:
    """Refuse to go on with other settings, naming each; a sentence about those that are `free` to change, if any did."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    said = {name: f"{name} was {_shown(before, name)} and is now {_shown(now, name)}" for name in names}
    fixed = [said[name] for name in names if name not in free]
    if fixed:
        raise Refused(
            f"The checkpoints of this run were made with other settings: {'; '.join(fixed)}. Set them back to go on, or "
            "start a new run."
        )
    return (
        f"It goes on with other settings, which change nothing of what is learnt: {'; '.join(said.values())}."
        if said
        else ""
    )


def _shown(settings: Mapping[str, Any], name: str) -> str:
    return repr(settings[name]) if name in settings else "not known"
