"""What is known of sound files on a disk: their length and a hash of their bytes, measured once; and how they are split."""

import hashlib
import json
import os
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from engine.audio import probe
from engine.errors import Refused
from engine.settings import settings

SPLITS = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "development": "valid",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
# Suffixes of files that are taken for sound where nothing names them.
SOUNDS = frozenset(
    ".wav .flac .mp3 .ogg .oga .opus .m4a .mp4 .aac .webm .mka .aif .aiff .aifc .au .caf .wma .amr .w64 .sph".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Entry:
    """A sound file as it was when it was measured."""

    seconds: float
    mark: str  # hash of its bytes


def measure(folder: Path, files: Iterable[Path]) -> dict[Path, Entry | str]:
    """Length and hash of each file, or the sentence that says why it is not usable.

    Kept in the workspace for each corpus folder; a file is measured again when its size or time of change differs.
    """
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    kept = settings().workspace / "catalogue" / f"{name}.json"
    try:
        known = json.loads(kept.read_text("utf-8"))
    except (OSError, ValueError):
        known = {}
    found: dict[Path, Entry | str] = {}
    missing: list[tuple[Path, str]] = []
    for file in dict.fromkeys(files):
        try:
            about = file.stat()
        except OSError:
            found[file] = f"There is no file '{file}'."
            continue
        stamp = f"{about.st_size} {about.st_mtime_ns}"
        entry = known.get(str(file))
        if isinstance(entry, list) and len(entry) == 3 and entry[0] == stamp:
            found[file] = Entry(float(entry[1]), str(entry[2]))
        else:
            missing.append((file, stamp))
    with ThreadPoolExecutor(4) as workers:
        for (file, stamp), entry in zip(missing, workers.map(_look, [file for file, _ in missing]), strict=True):
            found[file] = entry
            if isinstance(entry, Entry):
                known[str(file)] = [stamp, entry.seconds, entry.mark]
    if missing:
        kept.parent.mkdir(parents=True, exist_ok=True)
        beside = kept.with_name(f".{kept.name}.{os.getpid()}.tmp")
        beside.write_text(json.dumps(known), "utf-8")
        os.replace(beside, kept)
    return found


def _look(file: Path) -> Entry | str:
    try:
        seconds = probe(file).seconds
        with file.open("rb") as handle:
            return Entry(seconds, hashlib.file_digest(handle, "sha256").hexdigest())
    except Refused as error:
        return str(error)
    except OSError as error:
        return f"'{file.name}' cannot be read: {error.strerror}."


def split(groups: Mapping[str, str], seed: int = 0, share: float = 0.1) -> dict[str, str]:
    """Item -> train, valid or test. `groups` names what must stay together (the speaker) for each item.

    Groups are drawn with the seed until a tenth of the items is held out for test, then for valid. A group with more
    than a third of the items stays in train. Two groups or fewer cannot be held apart: all is train.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for item, group in groups.items():
        members[group].append(item)
    order = sorted(members)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda group: len(members[group]) * 3 > len(groups))
    given = dict.fromkeys(groups, "train")
    if len(order) < 3:
        return given
    for name, left in (("test", 2), ("valid", 1)):
        held = 0
        while len(order) > left and (held == 0 or held + len(members[order[0]]) / 2 < share * len(groups)):
            group = order.pop(0)
            held += len(members[group])
            given.update(dict.fromkeys(members[group], name))
    return given


def inside(folder: Path, file: Path) -> bool:
    """Whether a file, with all links followed, lies in a folder."""
    return os.path.realpath(file).startswith(os.path.realpath(folder).rstrip(os.sep) + os.sep)


def listed(errors: list[str]) -> str:
    """The first ten of many sentences, and how many there are."""
    more = f" ... and {len(errors) - 10:,} more." if len(errors) > 10 else ""
    return " ".join(errors[:10]) + more
