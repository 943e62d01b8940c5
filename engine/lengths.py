"""How long the sounds of a large corpus are: read from their headers once, and kept in the workspace.

The index is a text file that grows by a line for each sound, so that a first look that is interrupted goes on where it
was. It is a cache: deleted, it is made again. Unlike `catalogue`, which hashes every byte, this reads the ends of a file.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from engine.audio import probe
from engine.errors import Refused
from engine.members import member_of
from engine.settings import settings

AT_ONCE = 1024  # sounds between two writes of the index
ENDS = 4096  # bytes at either end of a sound that tell it from another of its size


@dataclass(frozen=True)
class Length:
    """What is known of a sound file without decoding it."""

    seconds: float
    mark: str  # hash of its size and its ends


def measure(name: str, files: Sequence[Path]) -> dict[Path, Length | str]:
    """The length of each sound, or the sentence that says why it cannot be used.

    Kept under the name of the corpus; a sound is looked at again when the size or the time of change of its file differs.
    """
    kept = settings().workspace / "lengths" / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.tsv"
    known = dict(_kept(kept))
    found: dict[Path, Length | str] = {}
    missing: list[tuple[Path, str]] = []
    stamps: dict[str, str] = {}  # of each archive, asked for once
    for file in files:
        try:
            stamp = _stamp(file, stamps)
        except OSError:
            found[file] = f"There is no file '{file}'."
            continue
        before = known.get(str(file))
        if before is not None and before[0] == stamp:
            found[file] = before[1]
        else:
            missing.append((file, stamp))
    if missing:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(8) as workers, kept.open("a", encoding="utf-8") as index:
            for first in range(0, len(missing), AT_ONCE):
                some = missing[first : first + AT_ONCE]
                looked = list(workers.map(_look, [file for file, _ in some]))
                lines = []
                for (file, stamp), length in zip(some, looked, strict=True):
                    found[file] = length
                    if isinstance(length, Length) and not {"\t", "\n", "\r"} & set(str(file)):
                        lines.append(f"{file}\t{stamp}\t{length.seconds!r}\t{length.mark}\n")
                index.write("".join(["\n", *lines]))  # the line before may be half written
                index.flush()
    return found


def _kept(index: Path) -> Iterator[tuple[str, tuple[str, Length]]]:
    try:
        text = index.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return
    for line in text.split("\n"):
        cells = line.split("\t")
        if len(cells) == 4 and len(cells[3]) == 16:
            try:
                yield cells[0], (cells[1], Length(float(cells[2]), cells[3]))
            except ValueError:
                continue


def _stamp(file: Path, archives: dict[str, str]) -> str:
    member = member_of(file)
    if member is not None and (kept := archives.get(str(member.archive))):
        return kept
    about = os.stat(file if member is None else member.archive)
    stamp = f"{about.st_size} {about.st_mtime_ns}"
    if member is not None:
        archives[str(member.archive)] = stamp
    return stamp


def _look(file: Path) -> Length | str:
    try:
        return Length(probe(file).seconds, _mark(file))
    except Refused as error:
        return str(error)
    except OSError as error:
        return f"'{file.name}' cannot be read: {error.strerror}."


def _mark(file: Path) -> str:
    member = member_of(file)
    with file.open("rb") if member is None else member.open() as handle:
        size = handle.seek(0, os.SEEK_END)
        mark = hashlib.sha256(str(size).encode())
        for place in (0, max(0, size - ENDS)):
            handle.seek(place)
            mark.update(handle.read(ENDS) or b"")
    return mark.hexdigest()[:16]
