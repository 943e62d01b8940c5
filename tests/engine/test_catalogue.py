"""Files are measured once; groups are never torn between splits."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from engine import audio, catalogue


def test_a_file_is_measured_again_only_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.wav"
    audio.save(file, np.zeros(8_000))
    probed: list[Path] = []
    probe = audio.probe
    monkeypatch.setattr(catalogue, "probe", lambda path: probed.append(path) or probe(path))
    first = catalogue.measure(tmp_path, [file, file])[file]
    assert isinstance(first, catalogue.Entry) and first.seconds == 0.5
    assert catalogue.measure(tmp_path, [file])[file] == first and len(probed) == 1
    os.utime(file, ns=(1, 1))
    assert catalogue.measure(tmp_path, [file])[file] == first and len(probed) == 2  # touched, but the same sound
    audio.save(file, np.full(8_000, 0.1))
    os.utime(file, ns=(2, 2))
    changed = catalogue.measure(tmp_path, [file])[file]
    assert isinstance(changed, catalogue.Entry) and changed.mark != first.mark


def test_what_is_not_usable_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("no sound")
    found = catalogue.measure(tmp_path, [tmp_path / "a.wav", tmp_path / "b.wav"])
    assert "known kind" in str(found[tmp_path / "a.wav"]) and "There is no file" in str(found[tmp_path / "b.wav"])


def test_a_damaged_cache_is_made_anew(tmp_path: Path, workspace: Path) -> None:
    audio.save(tmp_path / "a.wav", np.zeros(16_000))
    first = catalogue.measure(tmp_path, [tmp_path / "a.wav"])
    (kept,) = (workspace / "catalogue").iterdir()
    kept.write_text("{")
    assert catalogue.measure(tmp_path, [tmp_path / "a.wav"]) == first
    assert [path.name for path in (workspace / "catalogue").iterdir()] == [kept.name]


@given(groups=some.lists(some.integers(0, 30), min_size=1, max_size=200), seed=some.integers(0, 9))
def test_groups_stay_together(groups: list[int], seed: int) -> None:
    items = {str(index): str(group) for index, group in enumerate(groups)}
    given_ = catalogue.split(items, seed)
    assert given_ == catalogue.split(dict(reversed(items.items())), seed) and given_.keys() == items.keys()
    by_group: dict[str, set[str]] = {}
    for item, name in given_.items():
        by_group.setdefault(items[item], set()).add(name)
    assert all(len(names) == 1 for names in by_group.values())
    assert len({*given_.values()}) == (3 if len(by_group) > 2 else 1)


def test_about_a_tenth_each_and_the_seed_decides() -> None:
    items = {str(index): str(index // 4) for index in range(400)}
    counts = [[*catalogue.split(items, 1).values()].count(name) for name in ("train", "valid", "test")]
    assert counts == [320, 40, 40]
    assert catalogue.split(items, 1) != catalogue.split(items, 2)


def test_inside_follows_links(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out.wav").touch()
    (tmp_path / "in" / "link.wav").symlink_to(tmp_path / "out.wav")
    (tmp_path / "inner.wav").touch()
    assert catalogue.inside(tmp_path, tmp_path / "out.wav")
    for path in ("../out.wav", "link.wav", "../inner.wav", "/etc/passwd"):
        assert not catalogue.inside(tmp_path / "in", tmp_path / "in" / path)
