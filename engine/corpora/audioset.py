"""Sounds in folders with tables of their labels, as AudioSet (Gemmeke et al. 2017) and FSD50K are kept: "audioset:/path".

Tables lie in the folder itself: AudioSet's *_segments.csv (YTID, start_seconds, end_seconds, positive_labels), or any CSV
with a column fname or path and one of labels. A sound is found by its name, wherever it lies: YTID, YYTID, YTID_30 or
YTID_30.000 or the like for a segment that begins at second 30. The label `class` lists all labels of a sound, by the names
of class_labels_indices.csv where that is there. A table's name, or its column split, says the split; where none is
for validation, training holds some of its own back.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from engine import catalogue
from engine.errors import Refused
from engine.layout import Item, Layout, sounds, split_named

NAMES = "class_labels_indices.csv"


class Audioset(Layout):
    """Sounds of every kind with tables of their labels, as AudioSet lays them out."""

    expected = (
        "AudioSet or FSD50K: tables such as eval_segments.csv (YTID, start_seconds, end_seconds, positive_labels) or "
        "dev.csv (fname, labels), and the sounds that they name in folders beside them, are expected"
    )

    def items(self, folder: Path) -> Iterator[Item]:
        tables = [file for file in sorted(folder.glob("*.csv")) if file.name != NAMES]
        if not tables:
            return
        files = {name.rsplit(".", 1)[0]: place / name for place, names in sounds(folder) for name in names}
        names = _names(folder / NAMES)
        seen: set[Path] = set()
        for file in tables:
            for stems, labels, split in _lines(file):
                sound = next((files[stem] for stem in stems if stem in files), None)
                if sound is None or sound in seen:  # of videos that are gone there is no sound
                    continue
                seen.add(sound)
                yield Item(
                    id=sound.relative_to(folder).with_suffix("").as_posix(),
                    file=sound,
                    split=catalogue.SPLITS.get(split.lower(), "") or split_named(file.stem),
                    labels={"class": "; ".join(names.get(label, label) for label in labels)},
                )


def _lines(file: Path) -> Iterator[tuple[list[str], list[str], str]]:
    """The names that a line's sound may bear, its labels, and its split where the line says it."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            header: list[str] = []
            for cells in csv.reader(lines, skipinitialspace=True):
                if not cells or (cells[0].startswith("#") and "YTID" not in cells[0]):
                    continue
                if not header:
                    header = [name.strip("# ") for name in cells]
                    continue
                line = dict(zip(header, cells, strict=False))
                name = line.get("YTID") or line.get("fname") or line.get("path") or ""
                if name:
                    labels = line.get("positive_labels") or line.get("labels") or line.get("label") or ""
                    yield _stems(name, line), [label.strip() for label in labels.split(",")], line.get("split", "")
    except (UnicodeDecodeError, csv.Error) as error:
        raise Refused(f"'{file}' cannot be read as a table: {error}.") from None


def _stems(name: str, line: dict[str, str]) -> list[str]:
    if "YTID" not in line:
        name = name.rsplit("/", 1)[-1]
        return [name, name.rsplit(".", 1)[0]]
    stems = [name, f"Y{name}"]
    start, end = line.get("start_seconds", ""), line.get("end_seconds", "")
    try:
        ways = [(start, end), *((way.format(float(start)), way.format(float(end))) for way in ("{:.0f}", "{:.3f}", "{:g}"))]
        milliseconds = (f"{1000 * float(start):.0f}", f"{1000 * float(end):.0f}")
    except ValueError:
        return stems
    return stems + [
        stem
        for begins, ends in (*ways, milliseconds)
        for whole in (name, f"Y{name}")
        for stem in (f"{whole}_{begins}", f"{whole}_{begins}_{ends}")
    ]


def _names(file: Path) -> dict[str, str]:
    """The code of a class -> its name."""
    if not file.is_file():
        return {}
    with file.open(encoding="utf-8-sig", newline="") as lines:
        return {
            line["mid"]: line["display_name"] for line in csv.DictReader(lines) if line.keys() >= {"mid", "display_name"}
        }
