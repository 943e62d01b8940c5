"""Folders of sounds."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from engine import audio
from engine.corpora.folder import Folder
from engine.corpus import Span
from engine.errors import Refused


def _fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        audio.save(folder / name, np.zeros(8_000))


def test_a_class_for_each_folder(tmp_path: Path) -> None:
    _fill(
        tmp_path, *(f"{kind}/{index}.wav" for kind in ("dog", "cat") for index in range(10)), ".hidden/x.wav", "dog/.y.wav"
    )
    (tmp_path / "dog" / "notes.txt").write_text("no sound")
    utterances = list(Folder(str(tmp_path)).utterances())
    assert [utterance.id for utterance in utterances[:2]] == ["cat/0", "cat/1"] and len(utterances) == 20
    assert utterances[0].labels == {"class": "cat"}
    counts = Counter((utterance.labels["class"], utterance.split) for utterance in utterances)
    assert set(counts.values()) == {8, 1} and len(counts) == 6  # each class in each split


def test_plain_sound(tmp_path: Path) -> None:
    _fill(tmp_path, "a.wav", "b.wav")
    (tmp_path / "a.wrd").write_text("0 8000 hello\n")
    first, second = Folder(str(tmp_path)).utterances()
    assert (first.labels, first.split, second.split) == ({}, "train", "train")
    assert first.tiers == {"word": (Span(0.0, 0.5, "hello"),)}


def test_folders_that_are_splits(tmp_path: Path) -> None:
    _fill(tmp_path, "train/dog/a.wav", "Validation/dog/b.wav", "test/cat/c.wav")
    found = {utterance.id: (utterance.split, utterance.labels["class"]) for utterance in Folder(str(tmp_path)).utterances()}
    assert found == {
        "Validation/dog/b": ("valid", "dog"),
        "test/cat/c": ("test", "cat"),
        "train/dog/a": ("train", "dog"),
    }


def test_links_out_are_passed_over(tmp_path: Path) -> None:
    _fill(tmp_path, "set/a.wav", "out.wav", "away/b.wav")
    os.symlink(tmp_path / "out.wav", tmp_path / "set" / "out.wav")
    os.symlink(tmp_path / "away", tmp_path / "set" / "away")
    assert [utterance.id for utterance in Folder(str(tmp_path / "set")).utterances()] == ["a"]


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    for place in ("", str(tmp_path / "gone")):
        with pytest.raises(Refused, match="There is no folder"):
            list(Folder(place).utterances())
    with pytest.raises(Refused, match="There is no sound in"):
        list(Folder(str(tmp_path)).utterances())
    _fill(tmp_path, "a.wav")
    (tmp_path / "b.wav").write_text("text")
    with pytest.raises(Refused, match=r"holds 1 unusable file\. 'b\.wav' is not a sound"):
        list(Folder(str(tmp_path)).utterances())
    (tmp_path / "b.wav").rename(tmp_path / "a.mp3")
    with pytest.raises(Refused, match="are called 'a'"):
        list(Folder(str(tmp_path)).utterances())
