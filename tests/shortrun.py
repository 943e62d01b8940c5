"""A short run for the tests of jobs, and a command line that knows only it: its processes start in a fifth of a second.

`python tests/shortrun.py worker FOLDER | queue [IDLE] | live` stand for the same verbs of `app.cli`.
"""

import dataclasses
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

HOUSE = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, str(Path(__file__).resolve())]

SPEC = '''
"""Counts slowly, with a checkpoint at each step; or misbehaves as told."""

import os
import signal
import subprocess
import sys
import time
from typing import Literal

from engine.errors import Cancelled, Refused
from engine.run import Context, Result, RunSpec, write_text


class Short(RunSpec):
    """Counts slowly."""

    steps: int = 5
    pause: float = 0.02
    behaviour: Literal["", "fail", "break", "abort", "deaf", "children", "leave", "fork", "print", "exit"] = ""
    number: int = 0
    file: str = ""

    def needs(self) -> list[str]:
        return ["It needs a smaller number."] if self.number > 1000 else []

    def run(self, ctx: Context) -> Result:
        mine = ctx.folder / f"running-{os.getpid()}"
        mine.touch()
        for other in ctx.folder.glob("running-*"):
            if other != mine and _lives(int(other.name[8:])):
                (ctx.folder / "overlap").touch()
        saved = ctx.folder / "checkpoints" / "step"
        saved.parent.mkdir(exist_ok=True)
        first = int(saved.read_text()) if saved.exists() else 0
        if self.behaviour == "fail":
            raise Refused("This one always fails.")
        if self.behaviour == "break":
            raise ValueError("nobody expected this\\nsecond line")
        if self.behaviour == "abort":
            os.abort()
        if self.behaviour == "exit":
            sys.exit(0)
        if self.behaviour == "leave":
            subprocess.Popen(["sleep", "600"], start_new_session=True)
        if self.behaviour == "fork" and os.fork() == 0:
            time.sleep(600)
            os._exit(0)
        if self.behaviour == "print":
            print("a stray print")
            subprocess.run(["echo", "a stray child"], check=True)
        if self.behaviour == "children":
            modes = ["", "fail"] if self.number == 1 else ["", ""]
            base = {"run": "short", "steps": self.steps, "pause": self.pause}
            documents = [{**base, "behaviour": mode, "number": number} for number, mode in enumerate(modes)]
            results = ctx.children(documents)
            return Result([{"child": i, "rows": len(result.table)} for i, result in enumerate(results)])
        for step in range(first, self.steps):
            if self.behaviour == "deaf":
                time.sleep(self.pause)
                continue
            time.sleep(self.pause)
            write_text(saved, str(step + 1))
            ctx.progress(step + 1, self.steps, "counting")
        ctx.note("Counted.")
        ctx.artifact("steps.txt").write_text(str(self.steps))
        mine.unlink()
        table = [{"step": step, "square": step * step, "number": self.number} for step in range(self.steps)]
        return Result(table, facts={"first": first, "pid": os.getpid()})


def _lives(pid: int) -> bool:
    try:
        return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
'''


def drop(workspace: Path) -> Path:
    """Put the short run among the user's extensions."""
    file = workspace / "extensions" / "analyses" / "short.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(SPEC)
    return file


def resolve(document: dict[str, Any]) -> Any:
    """The spec of a document that says `run: short`."""
    from engine.errors import Unknown

    values = dict(document)
    if (name := values.pop("run")) != "short":
        raise Unknown("run", name, ["short"])
    return _module().Short(**values)


def _module() -> ModuleType:
    from engine.settings import settings

    name = "extensions.analyses.short"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, settings().extensions / "analyses" / "short.py")
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def wait(what: Callable[[], object], seconds: float = 20.0, message: str = "") -> None:
    """Wait until something is true."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, message or f"Waited {seconds} s in vain."
        time.sleep(0.02)


def processes(workspace: Path) -> Iterator[Any]:
    """Every process of a workspace, this one apart."""
    import psutil

    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("AUSCULT_WORKSPACE") == str(workspace):
                yield process
        except psutil.Error:
            continue


def words(process: Any) -> list[str]:
    """The command line of a process; none when it has ended."""
    import psutil

    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def end(workspace: Path) -> None:
    """Kill every process of a workspace."""
    import psutil

    for process in processes(workspace):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def sabotage(fault: str) -> None:
    """Break the code on purpose, to see the kill test fail: AUSCULT_FAULT=unlocked, in-place or forgetful."""
    from engine import job, run

    if fault == "unlocked":  # nobody ever finds a job taken
        job._take_lock = lambda handle, seconds: True
    elif fault == "in-place":  # a result grows where it is read

        def save(self: run.Result, file: Path) -> None:
            text = json.dumps(dataclasses.asdict(self))
            with file.open("w") as handle:
                for part in (text[:40], text[40:]):
                    handle.write(part)
                    handle.flush()
                    time.sleep(0.4)

        run.Result.save = save
    elif fault == "forgetful":  # a finished job is recorded by whoever comes by
        job.Job.conclude = lambda self: self.result_file.exists() and (self.events.append("finished"), True)[1]


def main(verb: str, *rest: str) -> int:
    from engine import live, queue, worker
    from engine.errors import Refused
    from engine.job import Job, JobStore

    sabotage(os.environ.get("AUSCULT_FAULT", ""))
    if verb == "worker":
        return worker.work(Job(Path(rest[0])), resolve)
    if verb == "live":
        live.serve(resolve)
        return 0
    try:
        queue.serve(JobStore(), COMMAND, idle_seconds=float(rest[0]) if rest else 60.0)
    except Refused as error:
        sys.stderr.write(f"{error}\n")
        return 3
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(HOUSE))
    sys.exit(main(*sys.argv[1:]))
