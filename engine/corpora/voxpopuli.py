"""VoxPopuli (Wang et al. 2021) as its scripts leave it: "voxpopuli:/path", with transcribed_data, unlabelled_data or both.

Both hold LANGUAGE/YEAR/*.ogg. In transcribed_data each language has the tables asr_train.tsv, asr_dev.tsv and asr_test.tsv,
which give words, speakers and gender. What has no words is divided 80/10/10 by sessions of the parliament. The label
`language` is there for all.
"""

from collections.abc import Iterator
from pathlib import Path

from engine.layout import Item, Layout, sounds, table

SPLITS = {"train": "train", "dev": "valid", "test": "test"}
KINDS = ("transcribed_data", "unlabelled_data")


class Voxpopuli(Layout):
    """Sessions of the European Parliament, as VoxPopuli lays them out."""

    expected = (
        "VoxPopuli: transcribed_data/LANGUAGE with YEAR/*.ogg and asr_train.tsv, asr_dev.tsv, asr_test.tsv, or "
        "unlabelled_data/LANGUAGE/YEAR/*.ogg, are expected"
    )

    def items(self, folder: Path) -> Iterator[Item]:
        # The folder itself may be one of the two.
        for place in [folder] if folder.name in KINDS else [folder / kind for kind in KINDS]:
            for language in sorted(entry for entry in place.iterdir() if entry.is_dir()) if place.is_dir() else ():
                yield from _transcribed(language) if place.name == KINDS[0] else _unlabelled(language)


def _transcribed(place: Path) -> Iterator[Item]:
    for name, split in SPLITS.items():
        file = place / f"asr_{name}.tsv"
        for line in table(file) if file.is_file() else ():
            id = line.get("id", "")
            if not id[:4].isdigit() or "/" in id:  # a table names no file of another folder
                continue
            yield Item(
                id=f"{place.name}/{id}",
                file=place / id[:4] / f"{id}.ogg",
                split=split,
                speaker=line.get("speaker_id", ""),
                text=line.get("normalized_text") or line.get("raw_text", ""),
                labels={"language": place.name, "gender": line.get("gender", "")},
            )


def _unlabelled(place: Path) -> Iterator[Item]:
    for year, names in sounds(place):
        for name in names:
            stem = name.rsplit(".", 1)[0]
            yield Item(
                id=f"{place.name}/{stem}",
                file=year / name,
                labels={"language": place.name, "gender": ""},
                group=stem.partition("_")[0],  # 20090112-0900-PLENARY-3-en of the parts of one session
            )
