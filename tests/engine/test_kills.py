"""`kill -9` of workers, the queue and the warm process at random moments: nothing is lost and nothing happens twice.

By hand, to see the test fail on broken code: AUSCULT_FAULT=unlocked|in-place|forgetful (see shortrun.sabotage).
"""

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import shortrun

from app import workbench
from engine.errors import Unavailable
from engine.job import Job, JobStore, State
from engine.live import Live
from engine.settings import settings
from engine.sweep import sweep

SLOTS = 3
STEPS = 12


@dataclass
class Storm:
    """A workspace whose processes are killed at random, and what keeps its queue running as the server does."""

    workspace: Path
    command: list[str]
    random: random.Random
    over: threading.Event = field(default_factory=threading.Event)
    killed: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    asked_again: int = 0
    wrong: list[str] = field(default_factory=list)

    def keep_queue(self) -> None:
        """Start the queue anew whenever it is gone."""
        with (self.workspace / "queue.log").open("ab") as output:
            while not self.over.is_set():
                queue = subprocess.Popen([*self.command, "queue"], stdout=output, stderr=output, cwd=shortrun.HOUSE)
                while queue.poll() is None:
                    if self.over.wait(0.05):
                        queue.terminate()
                        queue.wait()

    def keep_asking(self) -> None:
        """Ask the warm process one thing after the other; every answer must come and be right."""
        live = Live([*self.command, "live"])
        try:
            while not self.over.is_set():
                number = self.answers
                try:
                    answer = live.ask({"run": "short", "steps": 3, "pause": 0.03, "number": number})
                except Unavailable as error:
                    if "ended twice" not in str(error):  # killed twice over one question: it says so, and is asked again
                        self.wrong.append(f"Question {number} had no answer: {error}")
                    self.asked_again += 1
                    continue
                if [row["number"] for row in answer.result.table] != [number] * 3:
                    self.wrong.append(f"Question {number} had the answer {answer.result.table}.")
                self.answers += 1
        finally:
            live.close()

    def kill(self, kind: str, within: float) -> bool:
        """Choose a process of a kind, wait up to `within` seconds, and kill it where it still lives."""
        victims = []
        for process in shortrun.processes(self.workspace):
            with suppress(psutil.Error):
                if kind in (words := process.cmdline()) and self._may_die(words):
                    victims.append(process)
        if not victims:
            return False
        victim = self.random.choice(victims)
        time.sleep(self.random.uniform(0.0, within))
        with suppress(psutil.Error):
            if self._may_die(victim.cmdline()):  # a process that ended has no command line
                victim.kill()
                self.killed[kind] += 1
                return True
        return False

    def _may_die(self, words: list[str]) -> bool:
        # What loses a fourth worker is given up, as it should be; that is another test's matter.
        return bool(words) and ("worker" not in words or Job(Path(words[-1])).status().lost < 3)


def storm(workspace: Path, command: list[str], *, kills: int, jobs: int, pause: float, seconds: float) -> Storm:
    shortrun.drop(workspace)
    store = JobStore()

    def submit(number: int) -> Job:
        return store.submit({"run": "short", "steps": STEPS, "pause": pause, "number": number})

    everything = [submit(number) for number in range(jobs)]
    weather = Storm(workspace, command, random.Random(kills))
    threads = [threading.Thread(target=work) for work in (weather.keep_queue, weather.keep_asking)]
    for thread in threads:
        thread.start()
    try:
        plan = ["worker"] * (kills * 3 // 5) + ["queue", "live"] * (kills // 5)
        weather.random.shuffle(plan)
        for kind in plan:
            within = 1.2 * STEPS * pause if kind == "worker" else 2 * pause

            def strike(kind: str = kind, within: float = within) -> bool:
                # On a quick machine the jobs may end before the kills do; then there are more of them.
                while sum(not job.status().state.is_over for job in everything) <= SLOTS:
                    everything.append(submit(len(everything)))
                return weather.kill(kind, within)

            shortrun.wait(strike, 60, f"There was no {kind} to kill.")
        shortrun.wait(lambda: all(job.status().state.is_over for job in everything), seconds, "Some jobs never ended.")
        time.sleep(1.0)  # whoever would finish a job twice has time to do so
    finally:
        weather.over.set()
        for thread in threads:
            thread.join(60)
    return weather


def check(weather: Storm, kills: int, jobs: int) -> None:
    store = JobStore()
    found = list(store)
    lost = sum(job.status().lost for job in found)
    attempts = sum(job.status().attempts for job in found)
    sys.stdout.write(
        f"\n{weather.killed.total()} kills {dict(weather.killed)}, {len(found)} jobs, {attempts} attempts, {lost} lost, "
        f"{weather.answers} answers of the warm process, {weather.asked_again} questions asked again\n"
    )
    assert weather.killed.total() == kills and len(found) >= jobs
    assert {kind for kind in weather.killed} == {"worker", "queue", "live"}
    assert weather.wrong == [] and weather.answers > 0 and weather.asked_again <= weather.killed["live"] / 2
    for job in found:
        kinds = [event.kind for event in job.events.read()[0]]
        assert job.status().state is State.FINISHED, f"{job.id}: {job.status()}"
        assert kinds.count("finished") == 1, f"{job.id} finished {kinds.count('finished')} times"
        assert not (job.folder / "overlap").exists(), f"Two workers ran {job.id} at the same time."
        table = job.result().table
        assert [row["square"] for row in table] == [step * step for step in range(STEPS)]
        assert {row["number"] for row in table} == {job.document["number"]}
        # Each attempt went on where the one before had left: no step was counted back.
        assert job.result().facts["attempt"] == job.status().attempts
    sweep(weather.workspace, seconds=0.0)
    assert [place for place in weather.workspace.rglob(".*.tmp")] == []
    shortrun.wait(lambda: list(shortrun.processes(weather.workspace)) == [], 10, "Processes were left behind.")


@pytest.fixture(autouse=True)
def several_slots(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AUSCULT_CPU_SLOTS", str(SLOTS))
    settings.cache_clear()
    yield
    shortrun.end(workspace)


def test_a_few_kills(workspace: Path) -> None:
    check(storm(workspace, shortrun.COMMAND, kills=10, jobs=8, pause=0.05, seconds=60), 10, 8)


@pytest.mark.slow
def test_fifty_kills(workspace: Path) -> None:
    check(storm(workspace, shortrun.COMMAND, kills=50, jobs=30, pause=0.1, seconds=300), 50, 30)


@pytest.mark.slow
def test_fifty_kills_of_the_whole_program(workspace: Path) -> None:
    assert os.environ["AUSCULT_WORKSPACE"] == str(workspace)
    check(storm(workspace, workbench.COMMAND, kills=50, jobs=30, pause=0.4, seconds=900), 50, 30)
