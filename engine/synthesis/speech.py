"""Speech synthesis with exact times of phones and words, by espeak-ng in a child process.

espeak-ng is GPL: it is never loaded into this process, and everything else works without it. The child's answers depend on
the order of a request's texts (the synthesiser keeps state), so the same request gives the same bits.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.audio import SAMPLE_RATE
from engine.corpus import Span
from engine.errors import Unavailable
from engine.resample import Samples, resample

SILENCE = "sil"
LEAD, TAIL = 0.1, 0.15  # seconds of silence put before and after
SPEECH_DB = -25.0  # level of every clip over its speech, in dB below full scale
_CHILD = Path(__file__).with_name("espeak.py")
_WORD = 1  # espeak_EVENT_TYPE
_GAP = 0.003  # shorter stretches of zeros are part of a sound
_CLOSURE = 0.06  # longest pause that espeak puts between a word's event and its first phone, in running speech
_SHORTEST = 0.01  # a closure never shortens the phone before it to less


@dataclass(frozen=True)
class Text:
    """What is to be said, and how: espeak's own scales (rate in words a minute, pitch 0 to 99)."""

    text: str
    language: str = "en-us"
    voice: str = ""  # a variant such as "f1"; empty = the language's own
    rate: int = 170
    pitch: int = 50


@dataclass(frozen=True)
class Speech:
    """A clip at 16 kHz. Phones and silences tile it without a gap; words leave out the silences."""

    wave: Samples
    phones: tuple[Span, ...]
    words: tuple[Span, ...]


@cache
def _place() -> tuple[str, str]:
    try:
        import espeakng_loader
    except ImportError:
        raise Unavailable(
            "Speech cannot be synthesised: the package espeakng-loader is not installed. Run `python launch.py` once."
        ) from None
    return espeakng_loader.get_library_path(), espeakng_loader.get_data_path()


@cache
def version() -> str:
    """What identifies the synthesiser: a hash of its library."""
    return hashlib.sha256(Path(_place()[0]).read_bytes()).hexdigest()


@dataclass(frozen=True)
class Voice:
    """What a variant's file says of it."""

    sex: str  # a variant that says nothing has the base voice, which is male
    echo: bool  # an echo fills pauses and closures with sound


@cache
def voices() -> dict[str, Voice]:
    """Every variant that comes with espeak-ng, by name."""
    found = {}
    for file in sorted(Path(_place()[1], "voices", "!v").iterdir()):
        lines = (line.split() for line in file.read_text("utf-8", "replace").splitlines())
        said = {words[0]: words[1] for words in lines if len(words) > 1}
        found[file.name] = Voice(said.get("gender", "male").lower(), "echo" in said)
    return found


@cache
def languages() -> frozenset[str]:
    """Every language code that espeak-ng speaks."""
    data = Path(_place()[1])
    files = [file for file in data.joinpath("lang").rglob("*") if file.is_file()]
    return frozenset(file.name.lower() for file in files if (data / f"{file.name.split('-')[0]}_dict").exists())


def say(texts: Sequence[Text]) -> Iterator[Speech]:
    """Synthesise texts in order, in one child process."""
    library, data = _place()
    wishes = [asdict(text) | {"voice": f"{text.language}+{text.voice}".rstrip("+")} for text in texts]
    command = [sys.executable, "-I", "-S", str(_CHILD), library, data]
    try:
        done = subprocess.run(command, input=json.dumps(wishes).encode(), capture_output=True, timeout=60 + 5 * len(texts))
    except subprocess.TimeoutExpired:
        raise Unavailable(f"The speech synthesiser gave no answer for {len(texts)} texts and was stopped.") from None
    if done.returncode != 0:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"code {done.returncode}"
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise Unavailable(f"The speech synthesiser ended unexpectedly ({how}). {said[-1] if said else ''}".strip())
    answer, at = done.stdout, 0
    for text in texts:
        try:
            line = answer.index(b"\n", at) + 1
            about = json.loads(answer[at:line])
            at = line + 2 * about["samples"]
            raw = np.frombuffer(answer[line:at], "<i2")
            if len(raw) != about["samples"]:
                raise ValueError
        except (ValueError, KeyError, TypeError):
            raise Unavailable("The speech synthesiser gave an answer that cannot be read.") from None
        yield _speech(text.text, raw, about["events"], about["rate"])


def _speech(text: str, raw: NDArray[np.int16], events: list[list[Any]], rate: int) -> Speech:
    phones, words = _spans(text, raw, events, rate)
    wave = resample(raw.astype(np.float32) / np.float32(32_768), rate, SAMPLE_RATE)
    size = np.abs(wave)
    loud = size[size > 0.01]
    power = float(np.dot(loud, loud)) / len(loud) if len(loud) else 1.0
    gain = np.float32(min(10 ** (SPEECH_DB / 20) / power**0.5, 0.95 / max(1e-6, float(size.max(initial=0.0)))))
    silence = np.zeros(round(LEAD * SAMPLE_RATE), np.float32), np.zeros(round(TAIL * SAMPLE_RATE), np.float32)
    whole = np.concatenate([silence[0], wave * gain, silence[1]])
    end = len(whole) / SAMPLE_RATE
    if not phones:
        return Speech(whole, (Span(0.0, end, SILENCE),), ())
    if phones[0].label == SILENCE:
        phones[0] = Span(0.0, phones[0].end, SILENCE)
    else:
        phones.insert(0, Span(0.0, phones[0].start, SILENCE))
    if phones[-1].label == SILENCE:
        phones[-1] = Span(phones[-1].start, end, SILENCE)
    else:
        phones.append(Span(phones[-1].end, end, SILENCE))
    return Speech(whole, tuple(phones), tuple(words))


def _spans(text: str, raw: NDArray[np.int16], events: list[list[Any]], rate: int) -> tuple[list[Span], list[Span]]:
    """Phones and words in seconds of the padded clip.

    espeak announces a phone when it begins to sound, after the pause it puts before it (the closure of a stop). That pause
    belongs to the phone, so a phone begins at its word's event or where the zeros before it begin; after a silence,
    where it sounds. Voices with an echo have no zeros: there a closure inside a word stays with the phone before it.
    A vowel after a nasal or a liquid is announced when its transition is over.
    """
    tokens = _tokens(text)
    starts: list[tuple[int, str, int]] = []  # sample, label, token
    token = word_at = -1
    for kind, place, _, sample, label in events:
        if kind == _WORD:
            token = next((index for index, (begin, end) in enumerate(tokens) if begin < place <= end), token)
            word_at = sample
            continue
        label = plain(label)
        before = starts[-1][1] if starts else SILENCE
        begin = sample
        if label != SILENCE and before != SILENCE:
            earliest = starts[-1][0] + round(_SHORTEST * rate)
            zeros = _zeros_before(raw, earliest, sample)
            if max(earliest, sample - _CLOSURE * rate) <= word_at:
                begin = word_at
            elif _GAP * rate < zeros < sample - earliest:
                begin = sample - zeros
        word_at = -1
        if label == SILENCE and before == SILENCE and starts:
            continue
        starts.append((begin, label, token))
    ends = [begin for begin, _, _ in starts[1:]] + [len(raw)]
    phones: list[Span] = []
    heard: dict[int, tuple[float, float]] = {}
    for (begin, label, token), end in zip(starts, ends, strict=True):
        if end <= begin:
            continue
        span = Span(round(LEAD + begin / rate, 5), round(LEAD + end / rate, 5), label)
        phones.append(span)
        if label != SILENCE and token >= 0:
            heard[token] = (heard.get(token, (span.start, 0.0))[0], span.end)
    # Little words that are said as one ("of the") are announced once: then the span's label holds both.
    after = [*sorted(heard)[1:], len(tokens)]
    labels = [
        " ".join(_word(text[slice(*place)]) for place in tokens[one:two])
        for one, two in zip(sorted(heard), after, strict=True)
    ]
    return phones, [Span(*heard[token], label) for token, label in zip(sorted(heard), labels, strict=True)]


_PUNCTUATION = ".,;:!?\"'()[]«»¿¡„“”-"


def _word(token: str) -> str:
    return token.strip(_PUNCTUATION).lower()


def _tokens(text: str) -> list[tuple[int, int]]:
    places, begin = [], 0
    for token in text.split():
        begin = text.index(token, begin)
        places.append((begin, begin + len(token)))
        begin += len(token)
    return places


def _zeros_before(raw: NDArray[np.int16], earliest: int, sample: int) -> int:
    before = raw[earliest:sample]
    sounding = np.flatnonzero(before)
    return len(before) - (int(sounding[-1]) + 1 if len(sounding) else 0)


def plain(label: str) -> str:
    """A phone in IPA without marks of stress, length and syllable; what is no phone is silence."""
    return "".join(letter for letter in label if letter not in "ˈˌːˑ̩_:;|' ") or SILENCE
