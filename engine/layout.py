"""Corpora that keep the folders and tables of their publisher, and may be large.

A subclass says what each sound is; here they are measured by their headers and divided where the publisher did not. Sounds
that cannot be read are left out, and counted.
"""

import hashlib
import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from engine import catalogue, lengths
from engine.corpus import Corpus, Offer, Utterance
from engine.errors import Refused


@dataclass(frozen=True)
class Item:
    """A sound as its corpus tells of it, before it is measured."""

    id: str
    file: Path
    split: str = ""  # train, valid or test; nothing where the corpus does not say
    speaker: str = ""
    text: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    group: str = ""  # what must stay in one split where no speaker is known


class Layout(Corpus):
    """A folder that is laid out as its publisher does it."""

    expected: ClassVar[str]  # what lies in such a folder, as the end of a sentence

    @abstractmethod
    def items(self, folder: Path) -> Iterable[Item]:
        """Every sound that the folder's tables and names tell of, always in the same order."""

    def utterances(self) -> Iterator[Utterance]:
        yield from self._read[0]

    @property
    def content(self) -> str:
        return self._read[1]

    @property
    def left_out(self) -> str:
        return self._read[2]

    def offers(self) -> Offer | None:
        return Offer.of(({"speaker": item.speaker, **item.labels} for item in self._items), ())

    @cached_property
    def _items(self) -> list[Item]:
        folder = Path(self.place).expanduser()
        if not self.place or not folder.is_dir():
            raise Refused(f"There is no folder '{self.place}'.")
        folder = folder.resolve()
        items = list(self.items(folder))
        if not items:
            there = sorted(entry.name + "/" * entry.is_dir() for entry in os.scandir(folder))
            shown = ", ".join(there[:6]) + (f" and {len(there) - 6:,} more" if len(there) > 6 else "")
            raise Refused(f"'{folder}' is not laid out as {self.expected}. It holds {shown or 'nothing'}.")
        return items

    @cached_property
    def _read(self) -> tuple[list[Utterance], str, str]:
        items = self._items
        found = lengths.measure(self.name, [item.file for item in items])
        given = _splits(items)
        names = {name: "" for item in items for name in item.labels}
        mark, utterances, errors = hashlib.sha256(), [], []
        for item in items:
            length = found[item.file]
            if isinstance(length, str):
                errors.append(length)
                continue
            utterance = Utterance(
                id=item.id,
                path=item.file,
                seconds=length.seconds,
                split=given.get(item.id, item.split),
                speaker=item.speaker,
                text=item.text,
                labels={**names, **item.labels},
            )
            told = (item.id, utterance.split, item.speaker, item.text, *utterance.labels.values(), length.mark)
            mark.update("\0".join(told).encode())
            utterances.append(utterance)
        said = ""
        if errors:
            said = f"{len(errors):,} of {len(items):,} sounds of {self.name} cannot be used. {catalogue.listed(errors)}"
        if not utterances:
            raise Refused(said)
        return utterances, mark.hexdigest(), said


def _splits(items: list[Item]) -> dict[str, str]:
    """The split of every item that has none: speakers, else groups, are divided 80/10/10."""
    return catalogue.split({item.id: item.speaker or item.group or item.id for item in items if not item.split})


def sounds(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder below, and the names of the sounds in it. Hidden ones and links that leave it are passed over."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found = [name for name in sorted(names) if is_sound(name) and _own(folder, os.path.join(place, name))]
        if found:
            yield Path(place), found


def is_sound(name: str) -> bool:
    """Whether a name is that of a sound, by its suffix."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in catalogue.SOUNDS


def _own(folder: Path, file: str) -> bool:
    return not os.path.islink(file) or catalogue.inside(folder, Path(file))


def split_named(name: str) -> str:
    """The split that a name such as train-clean-100 or asr_dev begins with or holds; nothing where it names none."""
    for word in name.lower().replace("_", "-").replace(".", "-").split("-"):
        if word in catalogue.SPLITS:
            return catalogue.SPLITS[word]
    return ""


def table(file: Path, delimiter: str = "\t") -> Iterator[dict[str, str]]:
    """The lines of a table with a header, as they are written: quotation marks mean nothing in it."""
    try:
        with file.open(encoding="utf-8-sig") as lines:
            header = next(lines, "").rstrip("\r\n").split(delimiter)
            for line in lines:
                cells = line.rstrip("\r\n").split(delimiter)
                if len(cells) == len(header):
                    yield dict(zip(header, cells, strict=True))
    except UnicodeDecodeError:
        raise Refused(f"'{file}' is not UTF-8. Save it as UTF-8.") from None
