"""Common Voice (Ardila et al. 2020) as it is unpacked: "common_voice:/path/cv-corpus-VERSION", or one of its languages.

A language has a folder clips and the tables train.tsv, dev.tsv and test.tsv; where these are absent validated.tsv is read,
and its speakers are divided 80/10/10. Labels are language, gender, age and accent. A speaker is the client's number.
"""

from collections.abc import Iterator
from pathlib import Path

from engine.layout import Item, Layout, is_sound, table

TABLES = {"train.tsv": "train", "dev.tsv": "valid", "test.tsv": "test"}


class CommonVoice(Layout):
    """Sentences read by volunteers, as Common Voice lays them out."""

    expected = (
        "Common Voice: a folder clips and tables train.tsv, dev.tsv and test.tsv (or validated.tsv) with the columns "
        "client_id, path and sentence are expected, in it or in a folder for each language"
    )

    def items(self, folder: Path) -> Iterator[Item]:
        for place in (folder, *sorted(entry for entry in folder.iterdir() if entry.is_dir())):
            if (place / "clips").is_dir():
                tables = {name: split for name, split in TABLES.items() if (place / name).is_file()}
                for name, split in (tables or {"validated.tsv": ""}).items():
                    if (place / name).is_file():
                        yield from _items(place, name, split)


def _items(place: Path, name: str, split: str) -> Iterator[Item]:
    for line in table(place / name):
        sound = line.get("path", "")
        sound = sound if "." in sound else f"{sound}.mp3"  # the first releases left the suffix out
        if not is_sound(sound) or "/" in sound:  # a table names no file of another folder
            continue
        language = line.get("locale") or place.name
        yield Item(
            id=f"{language}/{sound.rsplit('.', 1)[0]}",
            file=place / "clips" / sound,
            split=split,
            speaker=line.get("client_id", ""),
            text=line.get("sentence", ""),
            labels={
                "language": language,
                "gender": line.get("gender", ""),
                "age": line.get("age", ""),
                "accent": line.get("accents") or line.get("accent", ""),
            },
        )
