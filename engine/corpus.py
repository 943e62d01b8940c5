"""What a corpus is: utterances with labels, and tiers of timed spans."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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
