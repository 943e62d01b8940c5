"""What a corpus is: utterances with labels, and tiers of timed spans."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from engine.errors import AuscultError, Unknown
from engine.registry import Registry


@dataclass(frozen=True)
class Span:
    """A labelled stretch of time, in seconds from the start of its utterance."""

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class Utterance:
    """One clip of a corpus and what is known about it."""

    id: str
    path: Path
    seconds: float
    split: str = "train"  # train, valid or test
    speaker: str = ""
    text: str = ""
    start: float = 0.0  # where the utterance begins in its file
    end: float | None = None  # where it ends; None = the end of the file
    labels: Mapping[str, str] = field(default_factory=dict)  # emotion, digit, language ...
    tiers: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)  # "phone", "word", ...


@dataclass(frozen=True)
class Offer:
    """What can be looked for in a corpus."""

    labels: Mapping[str, int]  # label of its utterances -> how many values it has
    tiers: tuple[str, ...]

    @classmethod
    def of(cls, lines: Iterable[Mapping[str, str]], tiers: Iterable[str]) -> "Offer":
        """The offer of utterances with these labels; one that is empty everywhere is none."""
        values: dict[str, set[str]] = {}
        for line in lines:
            for name, value in line.items():
                values.setdefault(name, set()).add(value)
        counts = {name: len(found - {""}) for name, found in values.items()}
        return cls({name: count for name, count in counts.items() if count}, tuple(dict.fromkeys(tiers)))


class Corpus(ABC):
    """A set of utterances. The file's stem is its kind; what follows the colon in its name is given to `__init__`."""

    kind: ClassVar[str]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.kind = cls.__module__.rsplit(".", 1)[-1]

    def __init__(self, place: str) -> None:
        self.place = place

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.place}" if self.place else self.kind

    @classmethod
    def known(cls) -> list[str]:
        """Names that a form can offer at once, such as the presets of a built-in corpus."""
        return []

    @abstractmethod
    def utterances(self) -> Iterator[Utterance]:
        """Every utterance, always in the same order. Their files exist when this returns."""

    def offers(self) -> Offer | None:
        """What can be looked for in it, found without making or measuring any sound; None where that cannot be said."""
        return None

    @property
    def here(self) -> bool:
        """Whether its utterances can be had without making their sound first."""
        return True

    @property
    def left_out(self) -> str:
        """A sentence on the sounds that cannot be used; empty where all can, or where one of them is reason to refuse."""
        return ""

    @property
    @abstractmethod
    def content(self) -> str:
        """A hash that changes when any sound, label or time of the corpus changes; part of every row key."""


CORPORA: Registry[Corpus] = Registry(Corpus, "engine.corpora")  # type: ignore[type-abstract]


def known() -> list[str]:
    """Every corpus that can be offered by name."""
    return [name for kind in CORPORA.classes().values() for name in kind.known()]


def find(name: str) -> Corpus:
    """The corpus called `name`: "spoken:digits", "manifest:/path/manifest.csv", "folder:/path"."""
    kind, _, place = name.partition(":")
    classes = CORPORA.classes()
    if kind not in classes:
        raise Unknown("corpus", name, [*known(), *(f"{kind}:..." for kind in classes)])
    return classes[kind](place)


def missing(name: str) -> list[str]:
    """Why this name cannot be used, as a sentence; nothing when it can."""
    try:
        find(name)
    except AuscultError as error:
        return [str(error)]
    return []


FRESH = 10  # seconds for which what a corpus offers is not looked up again


def offers(name: str) -> Offer | None:
    """What can be looked for in the corpus of this name. Cheap to ask: a form does at every stroke."""
    return _offers(name, int(time.monotonic() // FRESH))


@lru_cache(maxsize=16)
def _offers(name: str, now: int) -> Offer | None:
    return find(name).offers()
