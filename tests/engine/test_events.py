"""Events: whole lines or none, whoever writes and whenever it dies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.events import EventLog
from engine.settings import HOUSE


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events.jsonl")


def test_what_is_appended_is_read(log: EventLog) -> None:
    log.append("note", text="ä\nb")
    log.append("metric", step=3, loss=float("nan"))
    (first, second), offset = log.read()
    assert (first.kind, first.values) == ("note", {"text": "ä\nb"})
    assert second.values["step"] == 3 and second.values["loss"] != second.values["loss"]
    assert offset == log.file.stat().st_size
    assert log.read(offset) == ([], offset)


def test_no_file_is_no_event(log: EventLog) -> None:
    assert log.read() == ([], 0)


def test_a_half_written_line_waits_for_its_end(log: EventLog) -> None:
    log.append("one")
    with log.file.open("ab") as handle:
        handle.write(b'{"time": 1.0, "kind": "tw')
    events, offset = log.read()
    assert [event.kind for event in events] == ["one"]
    with log.file.open("ab") as handle:
        handle.write(b'o"}\n')
    assert [event.kind for event in log.read(offset)[0]] == ["two"]


@pytest.mark.parametrize("torn", [b"{", b'{"time": 1.0, "kind": "x", "text": "\xc3', b"5", b"null", b"[]", b'{"kind": "x"}'])
def test_a_torn_line_costs_no_other(log: EventLog, torn: bytes) -> None:
    log.append("before")
    with log.file.open("ab") as handle:
        handle.write(torn)
    log.append("after")
    assert [event.kind for event in log.read()[0]] == ["before", "after"]


def test_a_line_that_lacks_only_its_end_counts(log: EventLog) -> None:
    log.append("before")
    os.truncate(log.file, log.file.stat().st_size - 1)
    log.append("after")
    assert [event.kind for event in log.read()[0]] == ["before", "after"]


def test_a_full_disk_is_an_error(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log.append("before")
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, text: real(handle, text[:10]))
    with pytest.raises(OSError, match="No space"):
        log.append("lost")
    monkeypatch.undo()
    log.append("after")
    assert [event.kind for event in log.read()[0]] == ["before", "after"]


def test_writers_of_several_processes_do_not_mix(log: EventLog) -> None:
    program = (
        "import sys; from pathlib import Path; from engine.events import EventLog\n"
        "log = EventLog(Path(sys.argv[1]))\n"
        "for number in range(300): log.append('metric', writer=sys.argv[2], number=number, pad='x' * (number % 50) * 20)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, str(log.file), name], cwd=HOUSE) for name in "abc"]
    seen: list[tuple[str, int]] = []
    offset = 0
    while any(writer.poll() is None for writer in writers):
        events, offset = log.read(offset)
        seen += [(event.values["writer"], event.values["number"]) for event in events]
    seen += [(event.values["writer"], event.values["number"]) for event in log.read(offset)[0]]
    for name in "abc":
        assert [number for writer, number in seen if writer == name] == list(range(300))
