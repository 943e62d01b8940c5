"""Mockingjay on the built-in corpus: it learns, is found again with the same states, and goes on exactly after a kill."""

import os
import signal
import subprocess
import time
from pathlib import Path

import learning
import pytest
import torch

from app import workbench
from engine import upstream
from engine.errors import Interrupted, Refused
from engine.job import Job, JobStore, State
from engine.nets.masking import alter, spans
from engine.objectives.reconstruction import InRuns
from engine.pretext import Batch
from engine.pretexts.mockingjay import Mockingjay
from engine.run import Context
from engine.settings import HOUSE

TINY = {**learning.TINY, "steps": 24, "blocks": 2, "width": 32, "inner": 64, "checkpoint_every": 5, "validate_every": 6}


def begin() -> Job:
    return JobStore().submit(workbench.resolve(dict(TINY)).document)


def trace(job: Job) -> dict[int, tuple[str, ...]]:
    found: dict[int, tuple[str, ...]] = {}
    for event in job.events.read()[0]:
        if event.kind == "metric":
            told = tuple(f"{name}={float(value).hex()}" for name, value in sorted(event.values.items()))
            assert found.setdefault(event.values["step"], told) == told
    return found


def test_it_learns_is_killed_resumed_exactly_found_and_probed(workspace: Path) -> None:
    whole = begin()
    result = workbench.resolve(whole.document).run(Context(whole.folder, device="cpu"))
    result.save(whole.result_file)
    assert result.facts["last_valid_loss"] < 0.97 * result.facts["first_loss"]

    killed = begin()
    command = [*workbench.COMMAND, "worker", str(killed.folder)]
    child = subprocess.Popen(command, cwd=HOUSE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 90
    while len(trace(killed)) < 12 and time.monotonic() < until and child.poll() is None:
        time.sleep(0.002)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert killed.status().state is not State.FINISHED
    workbench.resolve(killed.document).run(Context(killed.folder, device="cpu")).save(killed.result_file)
    assert trace(killed) == trace(whole)

    # Both jobs made the same bits, and the hub gives the states that the network had.
    cards = {card.name: card for card in upstream.cards()}
    first, second = cards[f"job:{whole.id}"], cards[f"job:{killed.id}"]
    assert first.revision == second.revision and first.layers == 2 and first.hop == 320 and first.attention
    wave = torch.randn(8000, generator=torch.Generator().manual_seed(0)) * 0.1
    states = upstream.load(first.name).encode([wave]).states
    assert states[0].shape == (1, 25, 32)
    assert all(torch.equal(a, b) for a, b in zip(states, upstream.load(second.name).encode([wave]).states, strict=True))

    killed.result_file.unlink()  # an upstream is listed when its job has ended well
    assert second.name not in {card.name for card in upstream.cards()}

    probe = {
        "run": "linear_probe",
        "upstreams": f"job:{whole.id}",
        "corpus": TINY["corpus"],
        "repeats": 1,
        "baselines": [],
        "twin": False,
    }
    table = workbench.resolve(probe).run(Context(workspace / "jobs" / whole.id, device="cpu")).table
    accuracy = [line["value"] for line in table if line["measure"] == "accuracy" and line["upstream"] == f"job:{whole.id}"]
    assert len(accuracy) == 3 and max(float(value or 0) for value in accuracy) > 0.5


def test_a_stop_keeps_a_checkpoint_and_no_upstream(workspace: Path) -> None:
    job = begin()

    def stop() -> None:
        if len(trace(job)) >= 7:
            raise Interrupted("enough")

    with pytest.raises(Interrupted):
        workbench.resolve(job.document).run(Context(job.folder, device="cpu", stop=stop))
    assert sorted(file.name for file in job.checkpoints.glob("step-*")) == ["step-000000005.pt", "step-000000007.pt"]
    assert f"job:{job.id}" not in {card.name for card in upstream.cards()}
    with pytest.raises(Refused, match="has made no upstream"):
        upstream.find(f"job:{job.id}")


@torch.no_grad()
def test_only_hidden_frames_count() -> None:
    spec = Mockingjay(**{name: value for name, value in TINY.items() if name != "run"})  # type: ignore[arg-type]
    network = spec.network()
    objective = InRuns(network, spec.share, spec.span).eval()
    clips = [torch.randn(frames, network.channels) for frames in (20, 31)]
    batch = Batch([(clip,) for clip in clips], [0, 1], [11, 12])
    loss = objective(batch)
    by_hand, count = 0.0, 0
    for index, clip in enumerate(clips):
        hidden = spans(len(clip), spec.share, spec.span, batch.generators()[index])
        seen = alter(clip, hidden, batch.generators(1)[index])
        guess = objective.head(network.transformer(seen[None], torch.tensor([len(clip)]))[0][-1][0])
        by_hand += float((guess[hidden] - clip[hidden]).abs().sum())
        count += int(hidden.sum()) * network.channels
    assert float(loss.total) == pytest.approx(by_hand, rel=1e-5) and loss.count == count


def test_a_width_that_the_heads_do_not_divide_is_said_at_the_field() -> None:
    with pytest.raises(Refused, match="not a multiple of the 5 heads"):
        workbench.resolve({**TINY, "heads": 5})


def test_a_checkpoint_that_is_no_checkpoint_is_refused_and_no_code_in_it_is_run(workspace: Path) -> None:
    job = begin()
    job.checkpoints.mkdir()
    (job.checkpoints / "step-000000003.pt").write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    with pytest.raises(Refused, match="is damaged"):
        workbench.resolve(job.document).run(Context(job.folder, device="cpu"))
