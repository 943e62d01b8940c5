"""Every route has a row at the gate; what the server starts, it ends."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from app import server
from app.keeper import sweep
from app.routes import POLICIES, policy_of
from engine.errors import Refused
from engine.job import JobStore, State
from engine.settings import HOUSE

NAP = '''
"""A run that does nothing for a long time."""

import time

from engine.run import Context, Result, RunSpec


class Nap(RunSpec):
    """Sleep."""

    def run(self, ctx: Context) -> Result:
        for second in range(6000):
            ctx.progress(second, 6000, "asleep")
            time.sleep(0.01)
        return Result([])
'''


def walk(routes: list[Any], before: str = "") -> Iterator[tuple[str, set[str], str]]:
    """Path, methods and kind of every route, those of mounted and included applications too."""
    for route in routes:
        kind = type(route).__name__
        path = before + getattr(route, "path", "")
        inner = getattr(route, "original_router", None) or getattr(route, "app", None)
        if inner is not None and kind in {"Mount", "_IncludedRouter"} and getattr(inner, "routes", None):
            yield from walk(inner.routes, path)
        else:
            yield path, getattr(route, "methods", None) or set(), kind


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, set[str], str]]:
    """Every route that Gradio, Streamlit and we serve. Asked in a process of its own: both front ends change theirs."""
    program = (
        "import json; from app import server; from tests.app.test_server import walk;"
        "site = server.build(7860); board = next(route.app for route in site.routes if route.path == '/board');"
        "from streamlit.web.server.starlette.starlette_app import create_streamlit_routes;"
        "found = [*walk(site.routes), *walk(create_streamlit_routes(board._runtime), '/board')];"
        "print(json.dumps([[path, sorted(methods), kind] for path, methods, kind in found]))"
    )
    place = {**os.environ, "AUSCULT_WORKSPACE": str(tmp_path_factory.mktemp("routes")), "PYTHONPATH": str(HOUSE)}
    done = subprocess.run([sys.executable, "-c", program], cwd=HOUSE, env=place, capture_output=True, text=True, check=True)
    return [(path, set(methods), kind) for path, methods, kind in json.loads(done.stdout.splitlines()[-1])]


def test_every_route_has_a_row(routes: list[tuple[str, set[str], str]]) -> None:
    assert len(routes) > 80  # Gradio brings about 75 and Streamlit about 20; fewer means that the walk missed a branch
    pages = {"/board", "/board/*"}
    for path, _, kind in routes:
        if path in pages or (path == "/board" and kind == "Mount"):
            continue
        sample = path.replace("{path:path}", "x").replace("{", "").replace("}", "")
        row = policy_of(sample)
        assert row is not None, f"{path} has no row in app/routes.py: say there what may be done with it."
        # The row of Board's pages takes any path; a route of Streamlit's needs one of its own.
        assert row is not POLICIES["/board/*"], f"{path} has no row of its own in app/routes.py."


def test_no_row_is_left_over(routes: list[tuple[str, set[str], str]]) -> None:
    """A row for a route that is gone would open a door to whatever takes its name later."""
    samples = [path.replace("{path:path}", "x").replace("{", "").replace("}", "") for path, _, _ in routes]
    used = {id(policy_of(sample)) for sample in samples}
    # What the static files of Streamlit and the empty rest of /board/_stcore stand for are no routes.
    others = {"/board", "/board/*", "/board/static/*", "/board/_stcore/*", "/studio"}
    left = [path for path, row in POLICIES.items() if id(row) not in used and path not in others]
    assert not [path for path in left if POLICIES[path].methods], left


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("::", False)]
    + [("192.168.0.7", False), ("example.test", False), ("", False)],
)
def test_only_loopback_is_local(host: str, local: bool) -> None:
    assert server.is_local(host) is local


def test_a_busy_port_is_named_and_the_next_one_taken() -> None:
    said: list[str] = []
    with server.listen("127.0.0.1", 17860, said.append) as first:
        port = first.getsockname()[1]
        said.clear()
        with server.listen("127.0.0.1", port, said.append) as second:
            assert second.getsockname()[1] > port
            assert said[0].startswith(f"Port {port} is busy: ")
            assert f"(process {os.getpid()})" in said[0]


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(Refused, match=r"Nothing can listen at 192\.0\.2\.1"):
        server.listen("192.0.2.1", 17860, print)


def test_old_uploads_are_swept(tmp_path: Path) -> None:
    old, new = tmp_path / "a" / "old.wav", tmp_path / "b" / "new.wav"
    outside = tmp_path.parent / "outside.wav"
    for file in (old, new, outside):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    (tmp_path / "a" / "link.wav").symlink_to(outside)
    for file in (old, outside):
        os.utime(file, (0, 0))
    os.utime(tmp_path / "a" / "link.wav", (0, 0), follow_symlinks=False)
    sweep(tmp_path, 86_400)
    assert not old.parent.exists() and new.exists() and outside.exists()


class Running:
    """A served workspace, in a process."""

    def __init__(self, workspace: Path, *words: str) -> None:
        self.workspace = workspace
        self.said = workspace / "said.txt"
        with self.said.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "--no-browser", "--port", "17870", *words],
                cwd=HOUSE,
                env={**os.environ, "AUSCULT_WORKSPACE": str(workspace), "PYTHONPATH": str(HOUSE)},
                stdout=output,
                stderr=output,
            )
        self.address = ""

    def ready(self) -> None:
        def announced() -> bool:
            assert self.process.poll() is None, self.said.read_text()
            lines = [line for line in self.said.read_text().splitlines() if line.startswith("Auscult is at ")]
            self.address = lines[0].split()[-1].split("?")[0].rstrip("/") if lines else ""
            return bool(lines)

        until(announced, 90)

    def child(self, verb: str) -> psutil.Process:
        def found() -> Any:
            children = psutil.Process(self.process.pid).children(recursive=True)
            return next((one for one in children if _words(one)[-1:] == [verb]), None)

        process: psutil.Process = until(found, 30)
        return process

    def left(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("AUSCULT_WORKSPACE") == str(self.workspace) and process.pid != os.getpid():
                    found.append(process)
            except psutil.Error:
                continue
        return found


def _words(process: psutil.Process) -> list[str]:
    """The command line of a process; nothing of one that has just ended."""
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def until(answer: Callable[[], Any], seconds: float) -> Any:
    limit = time.monotonic() + seconds
    while not (found := answer()):
        assert time.monotonic() < limit, "It did not come about."
        time.sleep(0.05)
    return found


@pytest.fixture
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    workspace = tmp_path_factory.mktemp("served")
    extension = workspace / "extensions" / "analyses" / "nap.py"
    extension.parent.mkdir(parents=True)
    extension.write_text(NAP)
    served = Running(workspace)
    yield served
    for process in [served.process, *served.left()]:
        process.kill()
    served.process.wait()


def test_ctrl_c_ends_everything_and_a_running_job_stays_queued(running: Running) -> None:
    running.ready()
    with urllib.request.urlopen(f"{running.address}/studio/", timeout=30) as answer:
        assert answer.status == 200 and b"gradio" in answer.read()
    with urllib.request.urlopen(f"{running.address}/board/", timeout=30) as answer:
        assert answer.status == 200
    assert json.loads((running.workspace / "server.json").read_text())["address"] == running.address

    # A second server of this workspace says where the first one is.
    second = subprocess.run(
        [sys.executable, "-m", "app.cli", "--no-browser"],
        cwd=HOUSE,
        env={**os.environ, "AUSCULT_WORKSPACE": str(running.workspace)},
        capture_output=True,
        text=True,
    )
    assert second.returncode == 3
    assert f"already served at {running.address} (process {running.process.pid})" in second.stderr

    # A queue that is killed is replaced, and the new one works.
    first_queue = running.child("queue")
    first_queue.kill()
    assert until(lambda: running.child("queue").pid != first_queue.pid, 30)
    job = JobStore(running.workspace / "jobs").submit({"run": "nap"})
    until(lambda: job.status().stage == "asleep", 60)

    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(40) == 0
    assert running.left() == []
    assert job.status().state is State.QUEUED
    assert not (running.workspace / "server.json").exists()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{running.address}/healthz", timeout=5)


def test_only_this_machine_reaches_it_and_killed_it_leaves_no_warm_process(running: Running) -> None:
    running.ready()
    live = running.child("live")
    listening = [
        connection.laddr.ip
        for process in running.left()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening == ["127.0.0.1"]
    running.process.kill()
    running.process.wait()
    until(lambda: not live.is_running(), 10)
