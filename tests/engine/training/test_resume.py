"""A training that is killed, or whose disk is full or damaged, goes on with the numbers it would have had."""

import errno
import io
import json
import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import learning
import pytest
import torch

from engine.errors import Interrupted, Refused
from engine.events import EventLog
from engine.settings import HOUSE
from engine.training import saves
from engine.training.saves import Checkpoints, changes
from tests.engine.training.test_fit import trace, train

TINY = {
    **learning.TINY,
    "steps": 24,
    "blocks": 2,
    "width": 32,
    "inner": 64,
    "checkpoint_every": 3,
    "validate_every": 6,
    "average": 0.9,
    "parts": 2,
    "snapshots": True,
}


def notes(folder: Path) -> list[str]:
    return [event.values["text"] for event in EventLog(folder / "events.jsonl").read()[0] if event.kind == "note"]


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_pretext_that_is_killed_again_and_again_tells_and_leaves_the_same(tmp_path: Path, kills: int) -> None:
    command = [sys.executable, str(HOUSE / "tests" / "killing.py"), str(tmp_path), str(kills), json.dumps(TINY)]
    environment = {**os.environ, "PYTHONPATH": str(HOUSE), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=HOUSE, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    whole = trace(tmp_path / "whole")
    assert len(whole) == 24
    places = sorted(str(card.parent.relative_to(tmp_path / "whole")) for card in (tmp_path / "whole").rglob("card.json"))
    assert places == [
        "artifacts/best",
        *(f"artifacts/steps/{step:09d}" for step in (0, 1, 2, 4, 8, 16, 24)),
        "artifacts/upstream",
    ]
    for torn in tmp_path.glob("torn-*"):
        assert trace(torn) == whole
        for place in places:
            for file in ("model.safetensors", "card.json"):
                assert (torn / place / file).read_bytes() == (tmp_path / "whole" / place / file).read_bytes(), place
        assert not [file for file in torn.rglob(".*.tmp") if "events" in file.name]


def test_it_goes_on_from_the_newest_checkpoint_that_is_whole_and_says_so(tmp_path: Path) -> None:
    train(tmp_path / "whole")
    for number, damage in enumerate((lambda content: content[: len(content) // 2], _flipped, lambda content: b"")):
        folder = tmp_path / f"damaged-{number}"
        _stopped(folder, 20)
        newest = folder / "checkpoints" / "step-000000020.pt"
        newest.write_bytes(damage(newest.read_bytes()))
        train(folder)
        assert trace(folder) == trace(tmp_path / "whole")
        assert [note for note in notes(folder) if "step-000000020.pt is damaged" in note and "step-000000014.pt" in note]


def test_where_none_is_whole_it_is_refused(tmp_path: Path) -> None:
    _stopped(tmp_path / "run", 20)
    for file in (tmp_path / "run" / "checkpoints").glob("step-*"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(Refused, match="Every checkpoint in .* is damaged. Delete them"):
        train(tmp_path / "run")


def test_a_flipped_bit_is_found_or_does_no_harm(tmp_path: Path) -> None:
    _stopped(tmp_path, 8)
    file = tmp_path / "checkpoints" / "step-000000008.pt"
    content = file.read_bytes()
    (tmp_path / "checkpoints" / "step-000000007.pt").unlink()
    whole = Checkpoints(tmp_path / "checkpoints").newest(print)
    assert whole is not None
    draw, found = random.Random(0), 0
    for _ in range(60):
        place = draw.randrange(len(content))
        file.write_bytes(content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :])
        try:
            state = Checkpoints(tmp_path / "checkpoints").newest(print)
        except Refused:
            found += 1
            continue
        assert state is not None and str(state) == str(whole)
    assert found > 10


def _flipped(content: bytes) -> bytes:
    """With one bit of the largest tensor changed: nothing that torch itself would see."""
    names = zipfile.ZipFile(io.BytesIO(content))
    largest = max(names.infolist(), key=lambda part: part.file_size if "/data/" in part.filename else 0)
    place = content.index(names.read(largest)) + 9
    return content[:place] + bytes([content[place] ^ 64]) + content[place + 1 :]


def _stopped(folder: Path, steps: int) -> None:
    def stop() -> None:
        if len(trace(folder)) >= steps:
            raise Interrupted("enough")

    with pytest.raises(Interrupted):
        train(folder, stop)


def test_a_killed_writer_leaves_the_checkpoint_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in (1, 2, 3):
        checkpoints.write(step, {"step": step})
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2

    def broken(state: object, handle: object) -> None:
        handle.write(b"half")  # type: ignore[attr-defined]
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(Refused, match="Input/output error"):
        checkpoints.write(4, {"step": 4})
    state = checkpoints.newest(print)
    assert state is not None and state["step"] == 3
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


def test_on_a_full_disk_it_waits_and_then_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "whole")
    monkeypatch.setattr(saves, "LOOK_SECONDS", 0.02)
    save, refused = torch.save, []

    def full(state: dict[str, object], handle: object) -> None:
        if state["step"] == 14 and "value" not in state and len(refused) < 3:
            assert Checkpoints(tmp_path / "run" / "checkpoints").newest(print)["step"] == 7  # type: ignore[index]
            refused.append(14)
            raise RuntimeError("file write failed") from OSError(errno.ENOSPC, "No space left on device")
        save(state, handle)  # type: ignore[arg-type]

    def write(self: object, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def torn(state: dict[str, object], handle: object) -> None:
        try:
            full(state, handle)
        except RuntimeError:  # as torch does: the error of the handle is swallowed
            handle._handle = type("Full", (), {"write": write})()  # type: ignore[attr-defined]
            try:
                handle.write(b"half")  # type: ignore[attr-defined]
            except OSError:
                raise RuntimeError("PytorchStreamWriter failed writing file") from None

    monkeypatch.setattr(torch, "save", torn)
    train(tmp_path / "run")
    assert len(refused) == 3
    assert trace(tmp_path / "run") == trace(tmp_path / "whole")
    assert len([note for note in notes(tmp_path / "run") if "The disk is full" in note and "step 14" in note]) == 1


def test_who_waits_for_room_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saves, "LOOK_SECONDS", 0.02)

    def full(state: object, handle: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def stop() -> None:
        if any("The disk is full" in note for note in notes(tmp_path)):
            raise Interrupted("stop")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(Interrupted):
        train(tmp_path, stop)
    assert not list((tmp_path / "checkpoints").iterdir())


SMALL_DISK = """
import sys, threading, time
from pathlib import Path
from engine.training import saves
from tests.engine.training.test_fit import trace, train
saves.LOOK_SECONDS = 0.05
disk = Path(sys.argv[1])
ballast = disk / "ballast"
ballast.write_bytes(b"0" * int(sys.argv[2]))

def room():
    told = -1
    while len(trace(disk / "run")) != told or not told:  # until it stands still
        told = len(trace(disk / "run"))
        time.sleep(2)
    print("was full", sorted(file.name for file in (disk / "run" / "checkpoints").glob("step-*")), "at", told, flush=True)
    ballast.unlink()

(disk / "run").mkdir()
waiter = threading.Thread(target=room, daemon=True)
waiter.start()
train(disk / "run")
waiter.join(1)
whole = Path(sys.argv[3])
train(whole)
print("equal", trace(disk / "run") == trace(whole), len(trace(whole)))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root can make a small disk.")
def test_on_a_disk_that_is_really_full_it_waits_too(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    # Eight pages are left: the curves and two checkpoints of two pages each fit, but no third beside them.
    script = [sys.executable, "-c", SMALL_DISK, str(disk), "491520", str(tmp_path / "whole")]
    mounted = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=512k none "$0" && exec "$@"', str(disk), *script]
    environment = {**os.environ, "PYTHONPATH": str(HOUSE)}
    done = subprocess.run(mounted, cwd=HOUSE, env=environment, capture_output=True, text=True, timeout=120, check=False)
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip("This machine lets nobody mount a small disk.")
    assert done.returncode == 0, done.stderr
    assert "was full ['step-" in done.stdout and "equal True 30" in done.stdout


def test_other_settings_are_refused_by_name_on_resume(tmp_path: Path) -> None:
    train(tmp_path / "run", steps=8, asked={"rate": 0.1, "width": 32, "seed": 0})
    with pytest.raises(Refused, match="rate was 0.1 and is now 0.2; width was 32 and is now not known; heads was not known"):
        train(tmp_path / "run", steps=8, asked={"rate": 0.2, "heads": 4, "seed": 0})


def test_settings_that_change_nothing_may_change_and_are_said(tmp_path: Path) -> None:
    train(tmp_path / "whole")
    _stopped(tmp_path / "run", 9)
    train(tmp_path / "run", asked={"checkpoint_every": 5}, checkpoint_every=5)
    assert trace(tmp_path / "run") == trace(tmp_path / "whole")
    assert any("checkpoint_every was not known and is now 5" in note for note in notes(tmp_path / "run"))
    with pytest.raises(Refused, match="steps was 10 and is now 20"):
        changes({"steps": 10}, {"steps": 20}, {"parts"})
    assert changes({"steps": 10}, {"steps": 10}, set()) == ""


def test_a_training_whose_rate_is_steady_may_be_made_longer(tmp_path: Path) -> None:
    steady = {"schedule": "steady", "warm_up": 0.0}
    train(tmp_path / "long", steps=20, **steady)
    train(tmp_path / "run", steps=12, asked={"steps": 12}, **steady)
    train(tmp_path / "run", steps=20, asked={"steps": 20}, **steady)
    assert {**trace(tmp_path / "long"), 12: {}} == {**trace(tmp_path / "run"), 12: {}}  # there it validated at its end
    with pytest.raises(Refused, match="steps was 20 and is now 30"):
        train(tmp_path / "run", steps=30, asked={"steps": 30})
