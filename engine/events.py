"""An append-only log of JSON lines. Any process may append; readers keep a byte offset and stop at a half-written line."""

import errno
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Event:
    """Something that happened to a job."""

    time: float  # seconds since 1970
    kind: str
    values: dict[str, Any]


class EventLog:
    """The events of one job."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def append(self, kind: str, **values: Any) -> None:
        """Write one event. The line goes out in a single append, so that writers do not mix."""
        line = json.dumps({"time": time.time(), "kind": kind, **values}, ensure_ascii=False, allow_nan=True).encode() + b"\n"
        handle = os.open(self.file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            # A writer that died inside its line must not swallow this one.
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                line = b"\n" + line
            if os.write(handle, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.file))
        finally:
            os.close(handle)

    def read(self, offset: int = 0) -> tuple[list[Event], int]:
        """The events after `offset`, and the offset to ask from next time."""
        try:
            with self.file.open("rb") as handle:
                handle.seek(offset)
                text = handle.read()
        except FileNotFoundError:
            return [], offset
        whole = text.rfind(b"\n") + 1
        events = []
        for line in text[:whole].splitlines():
            try:
                values = json.loads(line)
                events.append(Event(values.pop("time"), values.pop("kind"), values))
            except (ValueError, KeyError, AttributeError, TypeError):
                continue  # the torn line of a killed writer
        return events, offset + whole
