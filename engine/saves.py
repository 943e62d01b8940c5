"""The saved states of a training on disk."""

import os
from pathlib import Path
from typing import Any

import torch

from engine import ranks
from engine.errors import Refused

KEPT = 2  # of a training stay on disk


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
        """Write beside, then rename; then drop what is too old. Of several processes only the first writes."""
        if ranks.rank():
            return
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
