"""Sound inside tar archives is read as it is read from a file of its own."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import audio
from engine.errors import Refused
from engine.members import Member, member_of

TONE = 0.1 * np.sin(np.arange(24_000) * 0.05)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    audio.save(tmp_path / "a.wav", TONE)
    with tarfile.open(tmp_path / "some.tar", "w") as made:
        for name in ("first.wav", "second.wav"):
            made.add(tmp_path / "a.wav", name)
    return tmp_path / "some.tar"


def places(archive: Path) -> list[Path]:
    with tarfile.open(archive) as held:
        return [Member(archive, member.offset_data, member.size).path(member.name) for member in held]


def test_a_member_sounds_as_the_file_does(archive: Path) -> None:
    alone = audio.load(archive.with_name("a.wav"))
    for place in places(archive):
        assert torch.equal(audio.load(place).wave, alone.wave) and audio.probe(place).seconds == 1.5
        part = audio.load(place, start=0.5, end=0.75)
        assert torch.equal(part.wave, alone.wave[8000:12000])


def test_what_it_holds_is_what_was_put_in(archive: Path) -> None:
    whole = archive.with_name("a.wav").read_bytes()
    for place in places(archive):
        member = member_of(place)
        assert member is not None and member.path("x/y.wav").name == "y.wav"
        with member.open() as handle:
            assert handle.size == len(whole) and handle.read() == whole
            assert handle.seek(-4, io.SEEK_END) == len(whole) - 4 and handle.read(100) == whole[-4:]
            assert handle.seek(-1) == len(whole)  # a seek to nowhere stays where it is
            assert handle.seek(10) == 10 and handle.read(5) == whole[10:15]
        with io.BufferedReader(member.open()) as handle:
            assert handle.read() == whole


def test_what_lies_beyond_the_archive_is_not_there(archive: Path) -> None:
    size = archive.stat().st_size
    for member in (Member(archive, size, 100), Member(archive, size + 5, 100)):
        with pytest.raises(Refused, match="'a.wav' is empty"):
            audio.load(member.path("a.wav"))
    with pytest.raises(Refused, match="known kind"):
        audio.load(Member(archive, 3, 1000).path("a.wav"))
    with pytest.raises(Refused, match="There is no file"):
        audio.load(Member(archive.with_name("gone.tar"), 0, 100).path("a.wav"))
    os.mkfifo(archive.with_name("pipe.tar"))
    with pytest.raises(Refused, match="its archive is not a regular file"):
        audio.load(Member(archive.with_name("pipe.tar"), 0, 100).path("a.wav"))


@pytest.mark.parametrize("path", ["a.wav", "/x/a.tar/a.wav", "/x/@1+2/a.wav", "/x/a.tar/@1+/a.wav", "/x/a.tar/@-1+2/a.wav"])
def test_other_paths_are_files(path: str) -> None:
    assert member_of(path) is None
