"""Timed labels from files: TSV or JSON lines, TextGrid, RTTM, TIMIT's .phn and .wrd. Times are seconds of the sound file."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from engine.corpus import Span
from engine.errors import Refused

TIMIT_RATE = 16_000
LARGEST = 50_000_000  # bytes of one file
NAMES = {
    "phones": "phone",
    "phonemes": "phone",
    "phoneme": "phone",
    "align": "phone",
    "alignment": "phone",
    "words": "word",
    "rttm": "speaker",
    "speakers": "speaker",
}
# Suffix -> the tier that such a file holds; None: the tier is named elsewhere.
SUFFIXES = {
    ".tsv": None,
    ".csv": None,
    ".json": None,
    ".jsonl": None,
    ".textgrid": None,
    ".rttm": "speaker",
    ".phn": "phone",
    ".wrd": "word",
}
BESIDE = (".textgrid", ".rttm", ".phn", ".wrd")  # looked for beside each sound file
_STARTS = ("start", "start_s", "begin", "onset", "tmin", "xmin")
_ENDS = ("end", "end_s", "offset", "stop", "tmax", "xmax")
_LABELS = ("label", "phone", "phoneme", "word", "unit", "text", "speaker")

Tiers = dict[str, list[Span]]


def read(file: Path, tier: str, sound: str = "") -> tuple[Tiers, bytes]:
    """The tiers of a file, and its bytes. `tier` names it where the file does not; `sound` picks its lines of an RTTM."""
    try:
        if file.stat().st_size > LARGEST:
            raise Refused(f"'{file.name}' is larger than {LARGEST:,} bytes.")
        raw = file.read_bytes()
    except OSError as error:
        raise Refused(f"'{file.name}' cannot be read: {error.strerror}.") from None
    return parse(raw, file.name, SUFFIXES.get(file.suffix.lower()) or tier, sound), raw


def parse(raw: bytes, name: str, tier: str, sound: str = "") -> Tiers:
    """The tiers in the bytes of a file of that name, each sorted by time."""
    suffix = Path(name).suffix.lower()
    try:
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        if suffix == ".textgrid":
            found = _textgrid(text)
        elif suffix == ".rttm":
            found = {"speaker": list(_rttm(text, sound))}
        elif suffix in (".phn", ".wrd"):
            found = {tier: list(_timit(text))}
        else:
            found = {tier: list(_rows(text))}
    except UnicodeDecodeError:
        raise Refused(f"'{name}' is not text in UTF-8.") from None
    except ValueError as error:
        raise Refused(f"'{name}' cannot be read as timed labels: {error}.") from None
    except (IndexError, KeyError, TypeError, StopIteration):
        raise Refused(f"'{name}' cannot be read as timed labels: a line lacks its start, end or label.") from None
    for spans in found.values():
        for span in spans:
            if not (0 <= span.start <= span.end < float("inf")):
                raise Refused(f"'{name}' has a label '{span.label}' from {span.start} s to {span.end} s.")
        spans.sort(key=lambda span: (span.start, span.end))
    return {key: spans for key, spans in found.items() if spans}


def beside(folders: Iterable[Path]) -> dict[Path, list[Path]]:
    """Files of timed labels that lie beside sounds, by the path that they share with a sound but for the suffix."""
    found: dict[Path, list[Path]] = {}
    for folder in folders:
        if folder.is_dir():
            for file in sorted(folder.iterdir()):
                if file.suffix.lower() in BESIDE:
                    found.setdefault(file.with_suffix(""), []).append(file)
    return found


def inline(text: str, tier: str) -> Tiers:
    """A tier written in a cell: [[start, end, label], ...] or [{"start": ..., "end": ..., "label": ...}, ...]."""
    return parse(text.encode(), "the cell", tier)


def fit(spans: Iterable[Span], start: float, seconds: float) -> tuple[Span, ...]:
    """Spans of a file as spans of the utterance that begins at `start`: moved, cut to it, those outside left out."""
    moved = (Span(max(0.0, s.start - start), min(seconds, s.end - start), s.label) for s in spans)
    return tuple(span for span in moved if span.end > span.start)


def _rows(text: str) -> Iterator[Span]:
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return
    if lines[0].lstrip()[0] in "[{":
        yield from _json(text, lines)
        return
    mark = "\t" if "\t" in lines[0] else "," if "," in lines[0] else None
    columns = [name.strip().lower() for name in lines[0].split(mark)]
    start, end, label = 0, 1, 2
    if any(name in _STARTS for name in columns):
        start = next(columns.index(name) for name in _STARTS if name in columns)
        end = next(columns.index(name) for name in _ENDS if name in columns)
        label = next((columns.index(name) for name in _LABELS if name in columns), 2)
        lines = lines[1:]
    for line in lines:
        cells = line.split(mark)
        if not cells[start].strip() or not cells[end].strip():
            continue  # a label without a time
        yield Span(float(cells[start]), float(cells[end]), cells[label].strip())


def _json(text: str, lines: list[str]) -> Iterator[Span]:
    try:
        whole = json.loads(text)
        entries = whole if isinstance(whole, list) and not _is_row(whole) else [whole]
    except ValueError:
        entries = [json.loads(line) for line in lines]
    for entry in entries:
        start, end, label = (entry["start"], entry["end"], entry["label"]) if isinstance(entry, dict) else entry
        yield Span(float(start), float(end), str(label))


def _is_row(value: list[object]) -> bool:
    return len(value) == 3 and isinstance(value[0], int | float)


def _rttm(text: str, sound: str) -> Iterator[Span]:
    # SPEAKER file channel start duration <NA> <NA> name (NIST RT-09 evaluation plan, appendix A)
    rows = [line.split() for line in text.splitlines() if line.startswith("SPEAKER ")]
    if len({row[1] for row in rows}) > 1:
        rows = [row for row in rows if row[1] == sound]
    for row in rows:
        yield Span(float(row[3]), round(float(row[3]) + float(row[4]), 6), row[7])


def _timit(text: str) -> Iterator[Span]:
    for line in text.splitlines():
        if line.strip():
            start, end, label = line.split(maxsplit=2)
            yield Span(int(start) / TIMIT_RATE, int(end) / TIMIT_RATE, label.strip())


def _textgrid(text: str) -> Tiers:
    # The long form says "key = value", the short form only the values, in the same order. Marks without length are left out.
    value = r'"((?:[^"]|"")*)"|(-?\d[\d.eE+-]*)'
    long = re.search(r"xmin\s*=", text) is not None
    pairs = re.findall(rf"=\s*(?:{value})" if long else rf"(?m)^\s*(?:{value})\s*$", text)
    values = iter([number or word.replace('""', '"') for word, number in pairs])
    if next(values, "") != "ooTextFile" or next(values, "") != "TextGrid":
        raise ValueError("it does not begin as a TextGrid")
    next(values), next(values)  # the whole time
    found: Tiers = {}
    for _ in range(int(next(values))):
        kind, name = next(values), next(values).strip().lower()
        next(values), next(values)
        spans = found.setdefault(NAMES.get(name, name), [])
        for _ in range(int(next(values))):
            start = float(next(values))
            end = float(next(values)) if kind == "IntervalTier" else start
            label = next(values).strip()
            if label and end > start:
                spans.append(Span(start, end, label))
    return found
