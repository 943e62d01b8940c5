"""Tar archives as WebDataset lays them out: "shards:/path", a folder with any number of .tar files.

Files of one name but for what follows the first full stop are one sample: 0001.flac, 0001.txt (words), 0001.cls (the
label `class`) and 0001.json, whose speaker, text (or sentence, or transcript) and split are known and whose other plain
values are labels. Sound is read where it lies in the archive, which therefore is not compressed. An archive whose name
says train, valid (dev) or test is of that split; else speakers, or samples, are divided 80/10/10.
"""

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.catalogue import SPLITS, inside
from engine.errors import Refused
from engine.layout import Item, Layout, is_sound, split_named
from engine.members import Member

SMALL = 2**20  # bytes of the largest file beside a sound that is read
ROLES = {
    "speaker": ("speaker", "speaker_id", "spk", "client_id"),
    "text": ("text", "sentence", "transcript", "transcription"),
    "split": ("split",),
}


@dataclass
class _Sample:
    """What an archive holds under one name."""

    sound: Path | None = None
    told: dict[str, str] = field(default_factory=dict)


class Shards(Layout):
    """Many sounds in a few tar archives, as WebDataset lays them out."""

    expected = "shards: .tar archives with sounds such as 0001.flac, and 0001.txt or 0001.json beside each, are expected"

    def items(self, folder: Path) -> Iterator[Item]:
        for place, folders, names in os.walk(folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                archive = Path(place, name)
                if name.endswith(".tar") and not name.startswith(".") and inside(folder, archive):
                    yield from _items(archive, archive.relative_to(folder).with_suffix("").as_posix())


def _items(archive: Path, shard: str) -> Iterator[Item]:
    samples = _samples(archive)
    for key, sample in samples.items():
        if sample.sound is not None:
            told = dict(sample.told)
            known = {role: next(filter(None, (told.pop(name, "") for name in names)), "") for role, names in ROLES.items()}
            yield Item(
                id=f"{shard}/{key}",
                file=sample.sound,
                split=SPLITS.get(known["split"].lower(), "") or split_named(shard.replace("/", "-")),
                speaker=known["speaker"],
                text=known["text"],
                labels=told,
            )


def _samples(archive: Path) -> dict[str, _Sample]:
    samples: dict[str, _Sample] = {}
    try:
        with tarfile.open(archive, "r:") as members:
            for member in members:
                folder, _, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                if not member.isreg() or member.issparse() or not stem:
                    continue
                sample = samples.setdefault(f"{folder}/{stem}".removeprefix("./").lstrip("/"), _Sample())
                if is_sound(name):
                    sample.sound = sample.sound or Member(archive, member.offset_data, member.size).path(name)
                elif member.size <= SMALL and suffix.lower() in {"txt", "cls", "json"}:
                    file = members.extractfile(member)
                    sample.told.update(_told(suffix.lower(), file.read() if file else b""))
    except tarfile.TarError as error:
        raise Refused(
            f"'{archive}' cannot be read as a tar archive: {error}. A compressed one has to be uncompressed first, as sound "
            "is read where it lies."
        ) from None
    return samples


def _told(suffix: str, raw: bytes) -> dict[str, str]:
    text = raw.decode("utf-8", errors="replace").strip()
    if suffix != "json":
        return {"text" if suffix == "txt" else "class": text}
    try:
        values: Any = json.loads(text)
    except ValueError:
        return {}
    plain = (str, int, float, bool)
    return (
        {name: str(value) for name, value in values.items() if isinstance(value, plain)} if isinstance(values, dict) else {}
    )
