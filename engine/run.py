"""Everything a user can start is a RunSpec; what it leaves behind is a Result."""

import hashlib
import json
import math
import os
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from engine import ranks
from engine.errors import Refused
from engine.events import EventLog
from engine.settings import settings

if TYPE_CHECKING:
    import torch

Value = str | int | float | bool | None
PARTIAL = "partial.json"  # the file of `Context.partial` in the folder of a run
Stop = Callable[[], None]  # raises Cancelled or Interrupted when the run must end


@dataclass(frozen=True)
class Figure:
    """How to draw a table, in words that every page draws alike: which columns, and what they mean.

    `line`: y against x, a curve for each `by`, a band from y_low to y_high where the table has those columns.
    `heat`: `value` over x and y; `centred` for differences. `bar`: y for each x. `scatter`: y against x, coloured by `by`.
    `sounds`: clips to play, by the columns utterance, start and end (seconds of the utterance); others stand beside.
    """

    kind: Literal["line", "heat", "bar", "scatter", "sounds"]
    title: str
    x: str = ""
    y: str = ""
    value: str = ""  # heat: the column that is drawn
    by: str = ""
    where: dict[str, Value] = field(default_factory=dict)  # only rows with these values
    x_title: str = ""
    y_title: str = ""
    value_title: str = ""
    centred: bool = False
    table: str = ""  # the artifact (a parquet file) that holds what is drawn; empty = the result's own table
    slider: str = ""  # heat and scatter: the column whose values a slider moves through, such as the layer
    opens: "Figure | None" = None  # what a chosen cell or point opens: this figure, of the rows that agree with it ...
    on: tuple[str, ...] = ()  # ... in these columns


@dataclass
class Result:
    """A tidy table (one row per measurement), how to draw it, and the facts that made it."""

    table: list[dict[str, Value]]
    figures: list[Figure] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)  # spec, seeds, versions, revisions, costs, notes

    def save(self, file: Path) -> None:
        """Write beside, then rename: the file is whole or absent."""
        write_text(file, json.dumps(_plain(asdict(self)), ensure_ascii=False, indent=1, allow_nan=False))

    @classmethod
    def read(cls, file: Path) -> "Result":
        values = json.loads(file.read_text("utf-8"))
        figures = [_figure(figure) for figure in values["figures"]]
        return cls(values["table"], figures, values["facts"])


def _figure(values: dict[str, Any]) -> Figure:
    opens = values.get("opens")
    nested = {"opens": _figure(opens) if opens else None, "on": tuple(values.get("on", ()))}
    return Figure(**{**values, **nested})


def _plain(value: Any) -> Any:
    # Browsers and other tools read JSON without NaN and infinity: a number that is not one is written as nothing.
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_text(file: Path, text: str) -> None:
    """Replace a file in one step that survives a crash and a power cut."""
    # The writer's process number comes last: the sweeper of the queue sees from it whether the writer still lives.
    beside = file.with_name(f".{file.name}.{secrets.token_hex(3)}.{os.getpid()}.tmp")
    try:
        with beside.open("w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(beside, file)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    flush_folder(file.parent)


def flush_folder(folder: Path) -> None:
    """Have the names in a folder on disk, so that a renamed file is still there after a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Context:
    """What a run may ask of the world while it works."""

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "",
        stop: Stop | None = None,
        submit: Callable[[Sequence[dict[str, Any]], str], "list[Result]"] | None = None,
    ) -> None:
        self.folder = folder
        self.log = EventLog(folder / "events.jsonl")
        self._device = device
        self._stop = stop
        self._submit = submit
        self._told = 0.0
        self._stage = ""

    @cached_property
    def device(self) -> "torch.device":
        """Where this run computes. A run that never asks, such as one that waits for others, touches no GPU."""
        import torch

        return torch.device(choose_device(self._device or settings().device))

    def check(self) -> None:
        """Raise Cancelled or Interrupted when someone asked this run to end. Cheap: call it often."""
        if self._stop is not None:
            self._stop()

    def progress(self, done: float, total: float, stage: str) -> None:
        """Say how far the run is. Written at most twice a second, and whenever the stage changes or ends."""
        self.check()
        now = time.monotonic()
        if stage != self._stage or done >= total or now - self._told > 0.5:
            self._told, self._stage = now, stage
            self.log.append("progress", done=done, total=total, stage=stage)

    def metric(self, step: int, **values: float) -> None:
        """Record numbers of a step (losses, rates, scores)."""
        self.log.append("metric", step=step, **values)

    def pace(self, step: int, **values: float) -> None:
        """Record how fast a training is and what it takes: numbers that differ from one attempt to the next."""
        self.log.append("pace", step=step, **values)

    def note(self, sentence: str) -> None:
        """Say something a person should know about this run."""
        self.log.append("note", text=sentence)

    def artifact(self, name: str) -> Path:
        """A place for a file that stays with the result."""
        file = self.folder / "artifacts" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        return file

    def partial(self, result: "Result") -> None:
        """Show what there is so far; the result itself will take its place."""
        result.save(self.folder / PARTIAL)

    def children(self, documents: Sequence[dict[str, Any]], watched: str = "") -> "list[Result]":
        """Run other specs as jobs of their own and wait for their results, in order.

        Those that watch the job `watched` wait for no free slot while it runs, else they would for as long as it does.
        """
        if self._submit is None:
            raise Refused("This run starts other runs; start it as a job.")
        return self._submit(documents, watched)


def choose_device(name: str) -> str:
    """Turn "auto" into the best device at hand; refuse one that is not there."""
    import torch  # a second of import that the queue, and a list of jobs, can do without

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and ranks.world() > 1:
        name = f"cuda:{ranks.local()}"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise Refused(f"This machine has no usable GPU, so the device '{name}' cannot be used. Choose cpu or auto.")
    return name


class RunSpec(BaseModel, ABC):
    """Validated parameters with a `run`. Form, command line, file, cache key and provenance all come from the class.

    The module's stem is the run's name, the class's docstring its help, each field's description the help beside it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    family: ClassVar[str] = ""  # analysis, pretext, task or suite
    leading: ClassVar[tuple[str, ...]] = ()  # fields that a form asks for before all others
    slots: ClassVar[int] = 1  # how many of the queue's slots it takes; 0 = it only waits for others
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Same seed, same numbers.")

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.name = cls.__module__.rsplit(".", 1)[-1]

    @field_validator("*", mode="before")
    @classmethod
    def _alone(cls, value: Any, info: ValidationInfo) -> Any:
        """One thing where a list is wanted stands for a list of one: upstreams=fbank."""
        wanted = get_origin(cls.model_fields[str(info.field_name)].annotation)
        return (value,) if wanted is tuple and isinstance(value, str | int | float) else value

    @classmethod
    def again(cls, name: str, default: Any) -> Any:
        """The field of this class with another default, for a subclass: `rate: float = Training.again("rate", 1e-3)`."""
        field = copy(cls.model_fields[name])
        field.default = default
        field._attributes_set = {**field._attributes_set, "default": default}
        return field

    @classmethod
    def title(cls) -> str:
        """The name as a person reads it."""
        return cls.name.replace("_", " ").capitalize()

    @property
    def together(self) -> int:
        """How many processes share it; each takes as many slots as one alone."""
        return 1

    @property
    def document(self) -> dict[str, Any]:
        """This spec as plain JSON: its registered name under "run", then its parameters."""
        return {"run": self.name, **self.model_dump(mode="json")}

    @property
    def key(self) -> str:
        """A hash of everything that was asked for."""
        return hashlib.sha256(json.dumps(self.document, sort_keys=True).encode()).hexdigest()[:16]

    def needs(self) -> list[str]:
        """Why this cannot run here and now, in sentences; empty when it can."""
        return []

    @abstractmethod
    def run(self, ctx: Context) -> Result:
        """Do the work."""
