"""The warm process: it may die at any moment, and the next question works."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import shortrun

from engine import live
from engine.errors import AuscultError, Refused, Unavailable
from engine.live import Answer, Live


@pytest.fixture
def engine(workspace: Path) -> Iterator[Live]:
    shortrun.drop(workspace)
    warm = Live([*shortrun.COMMAND, "live"])
    yield warm
    warm.close()
    assert [process for process in shortrun.processes(workspace) if "live" in shortrun.words(process)] == []


def question(**settings: Any) -> dict[str, Any]:
    return {"run": "short", "pause": 0.0, **settings}


def child(engine: Live) -> int:
    assert engine._child is not None
    return engine._child.process.pid


def test_an_answer_and_the_same_one_again(engine: Live, workspace: Path) -> None:
    answer = engine.ask(question(behaviour="print", steps=3))
    assert not answer.restarted and len(answer.result.table) == 3 and answer.result.facts["spec"]["steps"] == 3
    assert answer.folder.parent == workspace / "live"
    assert (answer.folder / "artifacts" / "steps.txt").read_text() == "3"
    log = (workspace / "live" / "log.txt").read_text()
    assert "a stray print" in log and "a stray child" in log
    began = time.monotonic()
    assert engine.ask(question(behaviour="print", steps=3)) == answer and time.monotonic() - began < 0.1
    assert engine.ask(question(steps=4)).result.facts["pid"] == answer.result.facts["pid"] == child(engine)

    for behaviour, sentence in [("fail", "This one always fails."), ("break", "ValueError: nobody expected this")]:
        with pytest.raises(Refused, match=sentence) as error:
            engine.ask(question(behaviour=behaviour))
        assert "Traceback" not in str(error.value)
    assert "second line" in (workspace / "live" / "log.txt").read_text()
    with pytest.raises(Refused, match="no run called 'unheard'"):
        engine.ask({"run": "unheard"})
    with pytest.raises(Refused, match="smaller number"):
        engine.ask(question(number=2000))
    assert not list((workspace / "live").glob(".*.tmp"))


def test_it_may_be_killed_at_any_moment(engine: Live, workspace: Path) -> None:
    assert not engine.ask(question()).restarted
    os.kill(child(engine), signal.SIGKILL)
    assert engine.ask(question(number=1)).restarted
    threading.Timer(0.3, lambda: os.kill(child(engine), signal.SIGKILL)).start()
    answer = engine.ask(question(number=2, steps=100, pause=0.01))
    assert answer.restarted and len(answer.result.table) == 100
    assert not engine.ask(question(number=3)).restarted
    assert not list((workspace / "live").glob(".*.tmp"))


def test_what_kills_it_each_time_is_said(engine: Live) -> None:
    with pytest.raises(Unavailable, match="ended twice"):
        engine.ask(question(behaviour="abort"))
    assert engine.ask(question()).restarted


def test_what_hangs_is_ended(engine: Live) -> None:
    engine.ask(question())
    with pytest.raises(Unavailable, match="longer than 1 s"):
        engine.ask(question(steps=10_000, pause=0.01), seconds=1)
    assert engine.ask(question(number=1)).restarted


def test_many_ask_at_once(engine: Live) -> None:
    engine.warm()
    answers: dict[int, Answer] = {}

    def ask(number: int) -> None:
        answers[number] = engine.ask(question(number=number % 4))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {number: answer.result.table[0]["number"] for number, answer in answers.items()} == {n: n % 4 for n in range(12)}
    assert len({answer.result.facts["pid"] for answer in answers.values()}) == 1


def test_closing_waits_for_nobody(engine: Live) -> None:
    said: list[AuscultError] = []

    def ask() -> None:
        try:
            engine.ask(question(behaviour="deaf", steps=10_000, pause=0.01))
        except AuscultError as error:
            said.append(error)

    engine.warm()
    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(1.0)
    began = time.monotonic()
    engine.close()
    thread.join(10)
    assert time.monotonic() - began < 5 and "closed" in str(said[0])
    with pytest.raises(Unavailable, match="closed"):
        engine.ask(question())


def test_it_does_not_outlive_its_parent(workspace: Path) -> None:
    shortrun.drop(workspace)
    folder = workspace / "live" / "x"
    process = subprocess.Popen(
        [*shortrun.COMMAND, "live"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert process.stdin is not None
    asked = {"document": question(steps=10_000, pause=0.01), "folder": str(folder)}
    process.stdin.write(json.dumps(asked).encode() + b"\n")
    process.stdin.flush()
    shortrun.wait(lambda: list((workspace / "live").glob(".*.tmp/running-*")))
    process.stdin.close()
    assert process.wait(5) == 0


def test_an_answer_depends_on_the_files_it_names(workspace: Path, tmp_path: Path) -> None:
    sound = tmp_path / "sound.wav"
    sound.write_text("one")
    keys = [live._key(question(file=str(sound))), live._key(question(file=f"folder:{tmp_path}"))]
    assert keys == [live._key(question(file=str(sound))), live._key(question(file=f"folder:{tmp_path}"))]
    sound.write_text("another")
    assert live._key(question(file=str(sound))) != keys[0] and live._key(question(file=f"folder:{tmp_path}")) != keys[1]
    before = live._key(question())
    shortrun.drop(workspace)
    assert live._key(question()) != before, "the user's own code changed"


def test_old_answers_make_room(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_MOST_ANSWERS", 3)
    folders = [workspace / "live" / f"k{number}" for number in range(6)]
    for age, folder in enumerate(reversed(folders)):
        folder.mkdir(parents=True)
        (folder / "result.json").write_text("{}")
        os.utime(folder, (time.time() - 1000 * age, time.time() - 1000 * age))
    live._forget_oldest(keep=folders[0])
    assert sorted(folder.name for folder in (workspace / "live").iterdir()) == ["k0", "k4", "k5"]
    monkeypatch.setattr(live, "_MOST_BYTES", 1)
    live._forget_oldest(keep=folders[0])
    assert sorted(folder.name for folder in (workspace / "live").iterdir()) == ["k0", "k5"], "just used ones stay"
