"""The built-in corpus: factors, determinism, and one build for all who ask."""

import hashlib
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from engine import audio, corpus
from engine.corpora import spoken
from engine.errors import Refused, Unavailable, Unknown
from engine.synthesis import speech


def _bytes(name: str) -> dict[str, str]:
    return {u.id: hashlib.sha256(u.path.read_bytes()).hexdigest() for u in corpus.find(name).utterances()}


@pytest.mark.parametrize("preset", ["digits", "commands", "sentences", "minimal-pairs", "languages"])
def test_every_preset(preset: str) -> None:
    utterances = list(corpus.find(f"spoken:{preset}?voices=3").utterances())
    assert len({utterance.text for utterance in utterances}) >= 10
    wrong = []
    for utterance in utterances:
        phones, words = utterance.tiers["phone"], utterance.tiers["word"]
        assert phones[0].start == 0 and phones[-1].end == pytest.approx(utterance.seconds, abs=1e-4)
        assert all(before.end == after.start for before, after in zip(phones, phones[1:], strict=False))
        assert utterance.labels["voice"] == utterance.speaker
        if " ".join(span.label for span in words) != utterance.text.strip(".?").replace(",", "").lower():
            wrong.append((utterance.text, [span.label for span in words]))
        merged = [span.label for span in words if " " in span.label]
        assert len(merged) <= 2, merged
    assert not wrong


def test_default_sizes_and_splits() -> None:
    plan = spoken.plan(spoken.read("digits"))
    assert len(plan) == 24 * 10 * 2 and len({item.id for item in plan}) == len(plan)
    assert Counter(item.split for item in plan) == {"train": 320, "valid": 80, "test": 80}
    for split in ("train", "valid", "test"):
        inside = {item.voice for item in plan if item.split == split}
        outside = {item.voice for item in plan if item.split != split}
        assert not inside & outside
        assert {item.labels["sex"] for item in plan if item.split == split} == {"female", "male"}
        assert {item.labels["digit"] for item in plan if item.split == split} == set(spoken.presets()["digits"]["texts"])


@pytest.mark.parametrize(
    "name", ["spoken:digits?voices=4", "spoken:commands?voices=3&noise=5&noise_kind=babble&codec=telephone"]
)
def test_the_same_bits_again(name: str, workspace: Path) -> None:
    first, content = _bytes(name), corpus.find(name).content
    shutil.rmtree(workspace / "spoken")
    assert _bytes(name) == first and corpus.find(name).content == content
    assert [path.name for path in (workspace / "spoken").iterdir() if path.name.endswith(".tmp")] == []


def test_the_seed_and_every_option_change_the_content() -> None:
    names = [
        "",
        "&seed=1",
        "&takes=3",
        "&pitch=40",
        "&rate=120",
        "&noise=10",
        "&room=small",
        "&codec=narrow",
        "&language=en-gb-x-rp",
    ]
    assert len({corpus.find(f"spoken:digits?voices=3{name}").content for name in names}) == len(names)


def test_factors_become_labels() -> None:
    name = "spoken:digits?voices=f1,m3,m7&pitch=30,70&noise=0,none&noise_kind=white,pink&room=none,large&codec=telephone"
    utterances = list(corpus.find(name).utterances())
    seen = {key: {u.labels[key] for u in utterances} for key in utterances[0].labels}
    assert seen["voice"] == {"f1", "m3", "m7"} and seen["sex"] == {"female", "male"} and seen["pitch"] == {"30", "70"}
    assert seen["noise"] == {"0", "none"} and seen["noise_kind"] == {"white", "pink", "none"}
    assert seen["room"] == {"none", "large"} and seen["codec"] == {"telephone"}
    assert [u.split for u in utterances[::20]] == ["test", "valid", "train"]
    level = {"0": [], "none": []}  # type: ignore[var-annotated]
    for u in utterances:
        level[u.labels["noise"]].append(float(audio.load(u.path).wave[: round(0.08 * 16_000)].abs().mean()))
    assert np.median(level["0"]) > 50 * np.median(level["none"])  # the lead is silent but for the noise


def test_digits_speak_other_languages() -> None:
    utterances = list(corpus.find("spoken:digits?voices=3&takes=1&language=en-us,de,fr").utterances())
    german = next(u for u in utterances if u.labels["language"] == "de" and u.labels["digit"] == "eight")
    assert [span.label for span in german.tiers["phone"] if span.label != "sil"] == ["a", "x", "t"]


@pytest.mark.parametrize(
    ("place", "error", "said"),
    [
        ("digitz", Unknown, "digits"),
        ("digits?voice=3", Unknown, "voices"),
        ("digits?voices", Refused, r"spoken:digits\?voices=8"),
        ("digits?voices=2", Refused, "from 3 to"),
        ("digits?voices=f1,f1,m1", Refused, "3 different voices"),
        ("digits?voices=f1,m1,nobody", Unknown, "voice"),
        ("digits?seed=-1", Refused, "whole number"),
        ("digits?noise=loud", Refused, "noise"),
        ("digits?noise_kind=brown", Unknown, "babble"),
        ("digits?room=hall", Unknown, "small"),
        ("digits?codec=mp3", Unknown, "telephone"),
        ("digits?language=xx", Unknown, "language"),
        ("sentences?language=de", Unknown, "language"),
        ("languages?language=ja", Unknown, "language"),
        ("digits?pitch=", Refused, "pitch"),
    ],
)
def test_wrong_options_are_sentences(place: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        corpus.find(f"spoken:{place}")


def test_a_lost_file_is_made_again() -> None:
    name = "spoken:digits?voices=3"
    before = _bytes(name)
    next(iter(corpus.find(name).utterances())).path.unlink()
    assert _bytes(name) == before


def test_a_failed_build_leaves_nothing(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(texts: object) -> object:
        raise Unavailable("The speech synthesiser ended unexpectedly (signal 11).")

    monkeypatch.setattr(speech, "say", fail)
    with pytest.raises(Unavailable, match="signal 11"):
        list(corpus.find("spoken:digits?voices=3").utterances())
    assert not [path for path in (workspace / "spoken").iterdir() if path.is_dir()]


def test_two_processes_do_the_work_once(workspace: Path) -> None:
    script = (
        "from engine.corpora import spoken\n"
        "made = spoken.build(spoken.read('digits?voices=3'))\n"
        "print(made.name, (made / 'corpus.json').stat().st_mtime_ns)\n"
    )
    asking = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = {process.communicate(timeout=120)[0] for process in asking}
    assert len(answers) == 1 and "digits-" in answers.pop()  # the same folder, written once
    assert len([path for path in (workspace / "spoken").iterdir() if path.is_dir()]) == 1
