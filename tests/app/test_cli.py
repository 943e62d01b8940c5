"""The command line: what it understands, what it says, and how it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tiny
import typer.main

from app import cli, verbs
from engine.job import INLINE, JobStore, State
from engine.settings import HOUSE

COUNT = '''
"""Counts, for the tests of the command line."""

import time

from pydantic import Field

from engine.errors import Refused
from engine.run import Context, Result, RunSpec


class Count(RunSpec):
    """Count to a number.

    More is said here.
    """

    to: int = Field(3, ge=1)
    words: list[str] = []
    pause: float = 0.0
    fail: str = ""

    def run(self, ctx: Context) -> Result:
        ctx.note("Counting.")
        for number in range(self.to):
            ctx.progress(number, self.to, "counting")
            time.sleep(self.pause)
        if self.fail == "said":
            raise Refused("This cannot be counted.")
        if self.fail == "unsaid":
            raise ZeroDivisionError("nobody thought of this")
        ctx.metric(self.to, reached=self.to)
        return Result([{"number": number, "word": word} for number, word in enumerate(self.words)])
'''


@dataclass
class Said:
    code: int
    out: str
    err: str


@pytest.fixture
def call(workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Types words into the command line."""
    extension = workspace / "extensions" / "analyses" / "count.py"
    extension.parent.mkdir(parents=True)
    extension.write_text(COUNT)

    def say(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["launch.py", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
            raise SystemExit(0)
        heard = capsys.readouterr()
        return Said(int(end.value.code or 0), heard.out, heard.err)

    return say


def python(program: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", program], cwd=HOUSE, capture_output=True, text=True, check=True)
    return done.stdout


def test_every_verb_is_written_where_the_launcher_reads_it() -> None:
    commands = typer.main.get_command(cli.cli).commands  # type: ignore[attr-defined]
    shown = [name for name, command in commands.items() if not command.hidden]
    assert shown == [verb for verb in verbs.VERBS if verb]
    for name in shown:
        assert commands[name].help == verbs.VERBS[name][1]
    options = {option for parameter in typer.main.get_command(cli.cli).params for option in parameter.opts}
    assert set(verbs.SERVING) == options - {"--help"}
    for written, said in [*verbs.VERBS.values(), *verbs.SERVING.values()]:
        assert len(said) <= 100 and "\n" not in said and said.endswith((".", "]")), written
    assert {name for name, command in commands.items() if command.hidden} == {"worker", "queue", "live", "compile"}


def test_help_loads_nothing_heavy() -> None:
    program = "import sys, app.cli; print(*[name for name in sys.argv[1:] if name in sys.modules])"
    heavy = [
        "torch",
        "numpy",
        "pandas",
        "pydantic",
        "gradio",
        "streamlit",
        "transformers",
        "starlette",
        "psutil",
        "rich.progress",
    ]
    done = subprocess.run([sys.executable, "-c", program, *heavy], cwd=HOUSE, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_listing_upstreams_loads_no_model_library() -> None:
    program = (
        "import sys; sys.argv = ['launch.py', 'list', 'upstreams', '--json']\n"
        "from app import cli\n"
        "try: cli.main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print('LOADED', *[name for name in ('transformers', 'torchaudio', 'gradio', 'streamlit') if name in sys.modules])"
    )
    listed, _, loaded = python(program).rpartition("LOADED")
    assert loaded.split() == []
    assert "fbank" in {row["name"] for row in json.loads(listed)}


@pytest.mark.parametrize("kind", ["upstreams", "corpora", "runs", "executors", "recipes"])
def test_everything_can_be_listed(kind: str, call: Callable[..., Said]) -> None:
    as_table, as_json = call("list", kind), call("list", kind, "--json")
    assert as_table.code == as_json.code == 0
    for row in json.loads(as_json.out):
        assert row["name"] in as_table.out
    if kind == "runs":
        assert {"name": "count", "family": "analysis", "about": "Count to a number."} in json.loads(as_json.out)


def test_a_broken_extension_is_reported_and_harms_nothing(call: Callable[..., Said], workspace: Path) -> None:
    (workspace / "extensions" / "analyses" / "torn.py").write_text("import nothing_of_this_name")
    said = call("list", "runs")
    assert said.code == 0 and "count" in said.out
    assert "torn.py could not be read and is left out: ModuleNotFoundError" in said.err


def test_a_run_prints_where_its_result_is(call: Callable[..., Said], workspace: Path) -> None:
    said = call("run", "count", "to=2", "words=[one, two]")
    assert said.code == 0
    result = Path(said.out.strip())
    assert workspace in result.parents and "Counting." in said.err
    assert [row["word"] for row in json.loads(result.read_text())["table"]] == ["one", "two"]


def test_a_run_prints_its_result_as_json(call: Callable[..., Said]) -> None:
    said = call("run", "count", "words=[a]", "--json")
    assert [row["word"] for row in json.loads(said.out)["table"]] == ["a"]
    assert re.search(r"It took [\d.]+ s \([\d.]+ s of processor time\) and at most [\d,]+ MB\.", said.err)


def test_a_file_and_its_overrides_are_run(call: Callable[..., Said], tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("run: count\nto: 1\nwords: [from, the, file]\n")
    assert len(json.loads(call("run", str(recipe), "--json").out)["table"]) == 3
    assert len(json.loads(call("run", str(recipe), "words=[one]", "--json").out)["table"]) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "cuont"], "There is no run or recipe called 'cuont'. Did you mean count?"),
        (["run", "count", "too=3"], "The settings of count are not usable. too: there is no such setting"),
        (["run", "count", "to=0"], "The settings of count are not usable. to: "),
        (["submit", "count", "--executor", "mars"], "There is no executor called 'mars'."),
        (["jobs", "nothing"], "There is no job called 'nothing'."),
        (["layers", "fbank", "nothing.wav", "--out", "x.npz"], "nothing.wav"),
        (["layers", "fbank", "nothing.wav", "--out", "x.npy"], "x.npy does not end with .npz"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(words: list[str], sentence: str, call: Callable[..., Said]) -> None:
    said = call(*words)
    assert said.code == 1 and said.out == ""
    assert sentence in said.err and "Traceback" not in said.err and said.err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["run"],
        ["run", "count", "to"],
        ["run", "count", "=3"],
        ["run", "count", "words=[a"],
        ["nothing"],
        ["--port", "0"],
        ["jobs", "--follow"],
        ["jobs", "x", "--cancel", "--resume"],
        ["list", "jobs"],
        ["submit", "count", "--executor", "inline"],
        ["--host", "0.0.0.0"],
        ["board", "--host", "192.168.0.7"],
    ],
)
def test_a_wrong_use_ends_with_two(words: list[str], call: Callable[..., Said]) -> None:
    said = call(*words)
    assert said.code == 2 and said.err and "Traceback" not in said.err


def test_other_machines_need_a_token(call: Callable[..., Said]) -> None:
    assert "--token" in call("--host", "0.0.0.0").err


@pytest.mark.parametrize(("fail", "sentence"), [("said", "This cannot be counted."), ("unsaid", "ZeroDivisionError")])
def test_a_run_that_fails_says_why_and_where_its_log_is(fail: str, sentence: str, call: Callable[..., Said]) -> None:
    said = call("run", "count", f"fail={fail}")
    assert said.code == 1 and said.out == ""
    assert sentence in said.err and "log.txt" in said.err and "Traceback" not in said.err


def test_what_nobody_expected_is_kept_in_a_file(
    call: Callable[..., Said], workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise KeyError("an accident")

    monkeypatch.setattr("engine.job.JobStore.get", broken)
    said = call("jobs", "x")
    assert said.code == 1 and "Traceback" not in said.err and "KeyError" in said.err
    assert "Traceback" in (workspace / "errors.log").read_text()


def test_jobs_are_submitted_listed_shown_and_cancelled(call: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    ensured: list[list[str]] = []
    monkeypatch.setattr("engine.queue.ensure", ensured.append)
    assert call("jobs").out == "There are no jobs yet.\n"
    job = call("submit", "count", "to=5", "--priority", "7").out.strip()
    assert ensured == [[sys.executable, "-m", "app.cli"]]
    status = JobStore().get(job).status()
    assert (status.state, status.priority, status.executor) == (State.QUEUED, 7, "process")
    assert re.search(rf"{job} +queued", call("jobs").out)
    detail = call("jobs", job[:-2]).out  # the beginning of an id is enough
    assert f"job          {job}" in detail and '"to": 5' in detail
    assert call("jobs", job, "--cancel").code == 0
    assert JobStore().get(job).status().state is State.CANCELLED
    followed = call("jobs", job, "--follow")
    assert followed.code == 1 and f"{job} is cancelled" in followed.out
    assert call("jobs", job, "--resume").code == 0
    assert JobStore().get(job).status().state is State.QUEUED
    assert call("worker", str(JobStore().get(job).folder)).code == 0
    assert call("jobs", job, "--logs").code == 0
    followed = call("jobs", job, "--follow")
    assert followed.code == 0 and "result.json" in followed.out
    assert "reached 5" in call("jobs", job).out


def test_ctrl_c_stops_a_run_so_that_it_can_be_resumed(call: Callable[..., Said], workspace: Path) -> None:
    place = {**os.environ, "AUSCULT_WORKSPACE": str(workspace)}
    command = [sys.executable, "-m", "app.cli", "run", "count", "to=9000", "pause=0.02"]
    process = subprocess.Popen(command, cwd=HOUSE, env=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 60
    while not any(job.status().stage == "counting" for job in JobStore()):
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    (job,) = JobStore()
    assert process.returncode == 130 and out == "" and "Traceback" not in err
    assert f"jobs {job.id} --resume" in err
    assert job.status().state is State.CANCELLED and job.status().executor == INLINE
    job.resume()
    assert job.status().state is State.QUEUED and job.status().executor == "process"


def test_layers_are_written_clip_by_clip(call: Callable[..., Said], tmp_path: Path) -> None:
    tone = (0.1 * np.sin(np.arange(16_000) / 5)).astype(np.float32)
    other = tmp_path / "other"
    other.mkdir()
    soundfile.write(tmp_path / "a.wav", tone, 16_000)
    soundfile.write(other / "a.flac", np.stack([tone, tone], 1), 44_100)
    out = tmp_path / "layers.npz"
    said = call("layers", "fbank", str(tmp_path / "a.wav"), str(other / "a.flac"), "--out", str(out))
    assert said.code == 0 and "a: layer 0 (98, 240), one frame every 10 ms" in said.out
    assert "a-2: Mixed 2 channels to one." in said.out
    with np.load(out, allow_pickle=False) as written:
        assert set(written) == {"a/0", "a-2/0", "hop_seconds"}
        assert written["a/0"].dtype == np.float32 and written["a/0"].shape == (98, 240)
        assert float(written["hop_seconds"]) == 0.01
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_layers_and_taps_are_named_with_their_shapes(call: Callable[..., Said], tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path / "hubert", "hubert")
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000, np.float32) + 0.1, 16_000)
    words = ["layers", f"hf:{tmp_path / 'hubert'}", str(tmp_path / "a.wav"), "--taps", "conv1,conv7"]
    said = call(*words)
    assert said.out.splitlines() == [
        "a: layers 0 to 2, each (49, 16), one frame every 20 ms",
        "a: tap conv1 (3199, 8), one frame every 0.3125 ms",
        "a: tap conv7 (49, 8), one frame every 20 ms",
    ]
    shown = [json.loads(line) for line in call(*words, "--json", "--out", str(tmp_path / "x.npz")).out.splitlines()]
    assert shown[3] == {"clip": "a", "layer": "conv1", "shape": [3199, 8], "hop_seconds": 0.0003125}
    with np.load(tmp_path / "x.npz", allow_pickle=False) as written:
        assert written["a/conv1"].shape == (3199, 8) and float(written["conv1/hop_seconds"]) == 0.0003125
    assert "There is no tap of" in call(*words[:-1], "conv8").err


def test_a_failure_leaves_no_half_written_layers(call: Callable[..., Said], tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", np.zeros(10, np.float32), 16_000)
    said = call("layers", "fbank", str(tmp_path / "short.wav"), "--out", str(tmp_path / "x.npz"))
    assert said.code == 1 and "needs at least" in said.err
    assert [file.name for file in tmp_path.iterdir()] == ["short.wav"]


def test_export_says_who_reads_what_it_wrote_or_why_it_wrote_nothing(call: Callable[..., Said], tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path / "hubert", "hubert")
    said = call("export", f"hf:{tmp_path / 'hubert'}", str(tmp_path / "out"))
    assert said.code == 0 and said.out == f"transformers.HubertModel.from_pretrained('{tmp_path / 'out'}') reads it.\n"
    refused = call("export", "fbank", str(tmp_path / "other"))
    assert refused.code == 1 and "fbank cannot be exported" in refused.err and not (tmp_path / "other").exists()
