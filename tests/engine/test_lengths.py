"""Sounds of a large corpus are measured once, by their headers, and an interrupted look goes on."""

import os
from pathlib import Path

import numpy as np
import pytest

from engine import audio, lengths
from engine.lengths import Length, measure


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose headers are read."""
    found: list[Path] = []
    probe = audio.probe
    monkeypatch.setattr(lengths, "probe", lambda path: found.append(path) or probe(path))
    return found


def fill(folder: Path, count: int) -> list[Path]:
    files = [folder / f"{number}.wav" for number in range(count)]
    for number, file in enumerate(files):
        audio.save(file, np.full(1600 * (number + 1), 0.1))
    return files


def test_a_sound_is_looked_at_again_only_when_it_changed(tmp_path: Path, looked: list[Path]) -> None:
    files = fill(tmp_path, 3)
    first = measure("x:y", files)
    assert [found.seconds for found in first.values() if isinstance(found, Length)] == pytest.approx([0.1, 0.2, 0.3])
    assert measure("x:y", files) == first and len(looked) == 3
    os.utime(files[1], ns=(1, 1))
    assert measure("x:y", files) == first and looked[3:] == [files[1]]
    audio.save(files[2], np.full(4800, 0.2))  # as long as before
    again = measure("x:y", files)
    assert again[files[2]] != first[files[2]] and looked[4:] == [files[2]]
    assert measure("another:z", files) == again and len(looked) == 8


def test_an_interrupted_look_goes_on(tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = fill(tmp_path, 5)
    monkeypatch.setattr(lengths, "AT_ONCE", 2)
    probe, probed = audio.probe, []

    def broken(path: Path) -> audio.Header:
        if path == files[4]:
            raise KeyboardInterrupt
        return probe(path)

    monkeypatch.setattr(lengths, "probe", broken)
    with pytest.raises(KeyboardInterrupt):
        measure("x:y", files)
    (index,) = (workspace / "lengths").iterdir()
    assert len(index.read_text().split()) == 4 * 5
    index.write_bytes(index.read_bytes()[:-5])  # and its last line is only half there
    monkeypatch.setattr(lengths, "probe", lambda path: probed.append(path) or probe(path))
    assert len(measure("x:y", files)) == 5 and sorted(probed) == files[3:]
    assert measure("x:y", files).keys() == set(files) and len(probed) == 2


def test_what_is_not_usable_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("no sound")
    found = measure("x:y", [tmp_path / "a.wav", tmp_path / "b.wav"])
    assert "known kind" in str(found[tmp_path / "a.wav"]) and "There is no file" in str(found[tmp_path / "b.wav"])
