"""Libri-light (Kahn et al. 2020) as it is unpacked: "librilight:/path", a folder with small, medium, large or any of them.

They hold SPEAKER/BOOK/*.flac, beside each a .json with what is known of it: the labels `book` and `genre`. The corpus has
no splits, so speakers are divided 80/10/10. Its sounds are chapters of many minutes; training cuts them itself.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.layout import Item, Layout, sounds


class Librilight(Layout):
    """Hours of read books without words, as Libri-light lays them out."""

    expected = (
        "Libri-light: SPEAKER/BOOK with sounds and a .json for each is expected, such as "
        "small/100/sea_fairies_0812_librivox_64kb_mp3/01_baum_sea_fairies_64kb.flac and .json"
    )

    def items(self, folder: Path) -> Iterator[Item]:
        for place, names in sounds(folder):
            speaker, book = place.parts[-2:]
            for name in names:
                file = place / name
                about = _about(file.with_suffix(".json"))
                if about is not None:
                    yield Item(
                        id=file.relative_to(folder).with_suffix("").as_posix(),
                        file=file,
                        speaker=str(about.get("speaker") or speaker),
                        labels={"book": book, "genre": _genre(about)},
                    )


def _about(file: Path) -> dict[str, Any] | None:
    try:
        about = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return about if isinstance(about, dict) else None


def _genre(about: dict[str, Any]) -> str:
    meta = about.get("book_meta")
    genre = meta.get("meta_genre") or meta.get("genre") if isinstance(meta, dict) else None
    return ", ".join(map(str, genre)) if isinstance(genre, list) else str(genre or "")
