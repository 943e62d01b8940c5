"""A warm process that holds upstreams for the pages; the web process never loads weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.run import Result


@dataclass(frozen=True)
class Answer:
    """What the warm process computed."""

    result: Result
    folder: Path  # artifacts/ lies in it
    restarted: bool  # the process had died and was started anew for this question


class Live:
    """One child process that answers specs, one after the other."""

    def __init__(self, command: list[str]) -> None:
        self.command = command

    def ask(self, document: dict[str, Any], *, seconds: float = 120.0) -> Answer:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
