"""LibriSpeech (Panayotov et al. 2015) as it is unpacked: "librispeech:/path/LibriSpeech", or one of its parts.

Parts such as train-clean-100, dev-other or test-clean hold SPEAKER/CHAPTER/*.flac and a transcript for each chapter. What
begins with dev is valid. SPEAKERS.TXT beside the parts gives the label `gender`. Other corpora of this layout
(Multilingual LibriSpeech is not one) are read too.
"""

from collections.abc import Iterator
from pathlib import Path

from engine.layout import Item, Layout, sounds, split_named


class Librispeech(Layout):
    """Read books as LibriSpeech lays them out."""

    expected = (
        "LibriSpeech: PART/SPEAKER/CHAPTER with sounds and their .trans.txt is expected, such as "
        "train-clean-100/19/198/19-198-0000.flac and 19-198.trans.txt"
    )

    def items(self, folder: Path) -> Iterator[Item]:
        genders = _genders(folder) or _genders(folder.parent)
        for place, names in sounds(folder):
            if len(place.parts) < 3 or not (texts := _texts(place)):
                continue
            part, speaker, chapter = place.parts[-3:]
            split = split_named(part)
            for name in names:
                stem = name.rsplit(".", 1)[0]
                yield Item(
                    id=f"{part}/{stem}",
                    file=place / name,
                    split=split,
                    speaker=speaker,
                    text=texts.get(stem, ""),
                    labels={"chapter": chapter, "part": part, "gender": genders.get(speaker, "")},
                )


def _texts(chapter: Path) -> dict[str, str]:
    """The words of each sound, from `19-198.trans.txt`."""
    file = chapter / f"{chapter.parent.name}-{chapter.name}.trans.txt"
    if not file.is_file():
        return {}
    lines = (line.partition(" ") for line in file.read_text("utf-8", errors="replace").splitlines())
    return {name: text.strip() for name, _, text in lines}


def _genders(folder: Path) -> dict[str, str]:
    """Speaker -> M or F, from SPEAKERS.TXT."""
    file = folder / "SPEAKERS.TXT"
    if not file.is_file():
        return {}
    lines = (line.split("|") for line in file.read_text("utf-8", errors="replace").splitlines() if line[:1] != ";")
    return {cells[0].strip(): cells[1].strip() for cells in lines if len(cells) > 2}
