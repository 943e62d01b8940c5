"""Event files as TensorBoard reads them, byte by byte, and without doubled steps after a resume."""

import struct
from pathlib import Path

import pytest

from engine.training.tensorboard import EventFile, _sum
from tests.engine.training.test_fit import trace, train


def test_checksums_are_those_of_the_standard() -> None:
    # RFC 3720 gives the sums of 32 zeros, of 32 ones, and of the numbers from 0 to 31.
    for data, crc in ((bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E)):
        masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
        assert _sum(data) == struct.pack("<I", masked)


def test_the_bytes_are_those_that_tensorboard_itself_writes(tmp_path: Path) -> None:
    file = EventFile(tmp_path / "curves" / "events")
    file.add(1700000000.5, 300, {"loss/train": 0.25, "rate": 1e-3})
    assert (tmp_path / "curves" / "events").read_bytes().hex() == GOLDEN


# What TensorBoard 2.21 makes of the same event; it reads ours back with these numbers too.
GOLDEN = (
    "0f000000000000006d532b091a0d627261696e2e4576656e743a32fc9851292e00000000000000c5cb57fa0900002040fc54d94110ac022a"
    "200a110a0a6c6f73732f747261696e150000803e0a0b0a0472617465156f12833aa4e191f5"
)


def read(folder: Path) -> list[tuple[int, str, float]]:
    """Every (step, tag, value) of the only event file there."""
    (file,) = (folder / "tensorboard").iterdir()
    content, place = file.read_bytes(), 0
    found = []
    while place < len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        assert content[place + 8 : place + 12] == _sum(content[place : place + 8])
        event = content[place + 12 : place + 12 + length]
        assert content[place + 12 + length : place + 16 + length] == _sum(event)
        found += _numbers(event)
        place += 16 + length
    return found


def _fields(message: bytes) -> list[tuple[int, bytes | int]]:
    place, fields = 0, []

    def whole() -> int:
        nonlocal place
        number = shift = 0
        while True:
            byte = message[place]
            place += 1
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    while place < len(message):
        key = whole()
        size = {1: 8, 5: 4}.get(key & 7)
        if key & 7 == 0:
            fields.append((key >> 3, whole()))
            continue
        size = whole() if size is None else size
        fields.append((key >> 3, message[place : place + size]))
        place += size
    return fields


def _numbers(event: bytes) -> list[tuple[int, str, float]]:
    fields = dict(_fields(event))
    if 5 not in fields:
        return []
    found = []
    for _, value in _fields(fields[5]):  # type: ignore[arg-type]
        parts = dict(_fields(value))  # type: ignore[arg-type]
        found.append((int(fields[2]), parts[1].decode(), struct.unpack("<f", parts[2])[0]))  # type: ignore[union-attr, arg-type]
    return found


def test_it_shows_what_was_told_and_goes_on_without_doubled_steps(tmp_path: Path) -> None:
    def stop() -> None:
        if len(trace(tmp_path / "torn")) == 17:
            raise KeyboardInterrupt  # no time to save: it goes on from step 14

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "torn", stop)
    (cut,) = (tmp_path / "torn" / "tensorboard").iterdir()
    cut.write_bytes(cut.read_bytes()[:-3])  # nor to end its line
    train(tmp_path / "torn")
    train(tmp_path / "whole")
    torn, whole = ([line for line in read(tmp_path / name) if not _is_pace(line[1])] for name in ("torn", "whole"))
    assert torn == whole
    assert [step for step, tag, _ in torn if tag == "loss/train"] == list(range(1, 31))
    assert [step for step, tag, _ in torn if tag == "loss/valid"] == [10, 20, 30]
    told = {step: float.fromhex(values["loss"]) for step, values in trace(tmp_path / "whole").items()}
    assert {step: value for step, tag, value in whole if tag == "loss/train"} == pytest.approx(told, rel=1e-6)


def _is_pace(tag: str) -> bool:
    return tag.split("/")[0] in {"steps_per_second", "waiting", "sound_per_second", "memory_gb"}


def test_half_a_record_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = EventFile(tmp_path / "events")
    before = (tmp_path / "events").read_bytes()
    opened = Path.open

    class Full:
        def __init__(self, handle: object) -> None:
            self.handle = handle

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *_: object) -> None:
            self.handle.close()  # type: ignore[attr-defined]

        def __getattr__(self, name: str) -> object:
            return getattr(self.handle, name)

        def write(self, data: bytes) -> int:
            return self.handle.write(data[:5])  # type: ignore[attr-defined, no-any-return]

    monkeypatch.setattr(Path, "open", lambda *given, **named: Full(opened(*given, **named)))
    with pytest.raises(OSError, match="No space left"):
        file.add(1.0, 1, {"loss": 1.0})
    monkeypatch.undo()
    assert (tmp_path / "events").read_bytes() == before
