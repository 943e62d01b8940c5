"""The synthesiser: exact times, the same bits, and a crash that is a sentence."""

from pathlib import Path

import numpy as np
import pytest

from engine.audio import SAMPLE_RATE
from engine.errors import Unavailable
from engine.synthesis import speech

VOWELS = {"æ", "ɑ", "ɔ", "ɛ", "ɪ", "i", "ʌ", "u", "ʊ", "eɪ", "aɪ", "oʊ", "aʊ", "ɜ"}


@pytest.fixture(scope="module")
def said() -> list[speech.Speech]:
    lines = ["The boy sold a yellow kite, to his younger cousin.", "Back at seven, a cat took a rock.", "42 goats."]
    return list(speech.say([speech.Text(line, voice=voice) for voice in ("m3", "linda") for line in lines]))


def test_phones_and_silences_tile_the_clip(said: list[speech.Speech]) -> None:
    for made in said:
        assert made.wave.dtype == np.float32 and np.abs(made.wave).max() <= 0.96
        assert made.phones[0].start == 0.0 and made.phones[0].label == made.phones[-1].label == speech.SILENCE
        assert made.phones[-1].end == pytest.approx(len(made.wave) / SAMPLE_RATE, abs=1e-4)
        for before, after in zip(made.phones, made.phones[1:], strict=False):
            assert before.end == after.start and before.end > before.start
            assert before.label != after.label or before.label != speech.SILENCE
        assert not any(mark in span.label for span in made.phones for mark in "ˈˌː")


def test_words_are_those_of_the_text(said: list[speech.Speech]) -> None:
    wanted = ["the", "boy", "sold", "a", "yellow", "kite", "to", "his", "younger", "cousin"]
    assert [span.label for span in said[0].words] == wanted
    assert [span.label for span in said[2].words] == ["42", "goats"]
    for made in said:
        edges = {span.start for span in made.phones} | {span.end for span in made.phones}
        for before, after in zip(made.words, made.words[1:], strict=False):
            assert before.end <= after.start
        assert all({word.start, word.end} <= edges for word in made.words)


def test_silence_is_silent_and_vowels_are_loud(said: list[speech.Speech]) -> None:
    levels: dict[str, list[float]] = {"vowel": [], "sil": []}
    for made in said:
        for span in made.phones:
            piece = made.wave[round((span.start + 0.005) * SAMPLE_RATE) : round((span.end - 0.005) * SAMPLE_RATE)]
            kind = "sil" if span.label == speech.SILENCE else "vowel" if span.label in VOWELS else ""
            if kind and len(piece):
                levels[kind].append(10 * np.log10(np.mean(np.square(piece, dtype=np.float64)) + 1e-12))
    assert min(levels["vowel"]) > -40 and np.median(levels["vowel"]) > -27
    assert np.median(levels["sil"]) < -80 and max(levels["sil"]) < -50


def test_a_stop_owns_its_closure(said: list[speech.Speech]) -> None:
    """In running speech the silence before a burst lies in the stop's span, and not in the phone before it."""
    (german,) = speech.say([speech.Text("42 Karten, 1995 Katzen.", "de", "m3")])
    seen = {"at a word": 0, "in a word": 0}
    for made in [*said, german]:
        starts = {word.start for word in made.words}
        for before, span in zip(made.phones, made.phones[1:], strict=False):
            if span.label in {"k", "t", "p", "ts"} and before.label != speech.SILENCE:
                opening = made.wave[round((span.start + 0.002) * SAMPLE_RATE) :][: round(0.01 * SAMPLE_RATE)]
                ending = made.wave[: round((before.end - 0.002) * SAMPLE_RATE)][-round(0.01 * SAMPLE_RATE) :]
                if np.abs(opening).max() < 1e-3:
                    seen["at a word" if span.start in starts else "in a word"] += 1
                assert np.abs(ending).max() > 1e-3
    assert seen["at a word"] >= 3 and seen["in a word"] >= 3, seen


def test_the_same_request_gives_the_same_bits(said: list[speech.Speech]) -> None:
    texts = [speech.Text("Back at seven.", voice="f1"), speech.Text("Guten Tag.", "de", "f1", 200, 70)]
    once, twice = list(speech.say(texts)), list(speech.say(texts))
    assert all(np.array_equal(a.wave, b.wave) and a.phones == b.phones for a, b in zip(once, twice, strict=True))
    assert len(once[1].wave) < len(next(iter(speech.say([speech.Text("Guten Tag.", "de", "f1", 100, 70)]))).wave)


def test_voices_and_languages() -> None:
    assert len(speech.voices()) > 90 and speech.voices()["f1"].sex == "female" and speech.voices()["f2"].echo
    assert {"en-us", "de", "fr", "pl", "tr"} <= speech.languages()


@pytest.mark.parametrize(
    ("body", "said_"),
    [
        ("import os; os.abort()", r"ended unexpectedly \(signal 6\)"),
        ("import sys; sys.exit('no such voice')", "no such voice"),
        ("print('{}')", "gave an answer that cannot be read"),
    ],
)
def test_a_crash_of_the_child_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, said_: str) -> None:
    child = tmp_path / "child.py"
    child.write_text(body)
    monkeypatch.setattr(speech, "_CHILD", child)
    with pytest.raises(Unavailable, match=said_):
        list(speech.say([speech.Text("one")]))


def test_an_unknown_language_is_a_sentence() -> None:
    with pytest.raises(Unavailable, match="no voice called"):
        list(speech.say([speech.Text("one", "xx")]))


def test_the_library_stays_out_of_this_process(said: list[speech.Speech]) -> None:
    assert "espeak-ng" not in Path("/proc/self/maps").read_text()
