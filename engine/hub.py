"""The upstreams as things that one has, fetches, adds and deletes: what is here of each, and checkpoints of one's own."""

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from engine import checkpoint, download, upstream
from engine.errors import Refused, Unknown
from engine.settings import settings
from engine.upstream import Card, Tap

PLAIN = {field.name for field in fields(Card)} - {"open", "fetch", "files", "untrained", "here"}


@dataclass(frozen=True)
class Entry:
    """An upstream, and how much of it was fetched."""

    card: Card
    bytes_here: int  # of files that were fetched
    bytes_partial: int  # of files that are not whole yet
    own: bool  # added by its path


def entries() -> list[Entry]:
    """Every upstream that is known ahead or was added. Reads no weights."""
    own = {card.name for card in added()}
    return [_entry(card, card.name in own) for card in upstream.cards()]


def _entry(card: Card, own: bool) -> Entry:
    lying = card.files(card) if card.files else []
    partial = sum(_size(path) for path in lying if download.partial(path))
    whole = sum(_size(path) for path in lying) - partial
    # Of several files some may be whole while the model is not.
    return Entry(card, whole, partial, own) if card.here or not partial else Entry(card, 0, whole + partial, own)


def add(path: str) -> Card:
    """Remember a checkpoint on this machine: a folder in transformers' layout, or a file in a layout that is known."""
    place = Path(path.strip()).expanduser()
    if not path.strip() or not place.exists():
        raise Refused(f"There is nothing at '{path}' on this machine. Write the path of a checkpoint: a folder or a file.")
    place = place.resolve()
    if place.name == "config.json":
        place = place.parent
    name = f"hf:{place}" if place.is_dir() else checkpoint.recognise(place)
    card = upstream.find(name)
    with _locked():
        _write([*(card for card in _read() if card.name != name), card])
    return card


def added() -> Iterator[Card]:
    """The cards of what was added, as they were then; `upstream.find` reads them anew."""
    try:
        cards = _read()
    except Refused:
        return  # who adds or forgets one is told
    for card in cards:
        yield replace(card, here=Path(card.name.partition(":")[2]).exists())


def forget(name: str) -> None:
    """Remember an added checkpoint no longer; its files stay where they are."""
    with _locked():
        cards = _read()
        if name not in {card.name for card in cards}:
            raise Unknown("added checkpoint", name, [card.name for card in cards])
        _write([card for card in cards if card.name != name])


def delete(name: str) -> int:
    """Remove what was fetched of an upstream; how many bytes that freed."""
    card = next((card for card in upstream.cards() if card.name == name), None) or upstream.find(name)
    if card.files is None:
        raise Refused(f"Nothing of {name} was fetched, so there is nothing to delete.")
    freed = 0
    for path in card.files(card):
        if not path.absolute().is_relative_to(settings().downloads):
            continue  # only what was fetched, never a file of the user's
        freed += _size(path)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return freed


def _size(path: Path) -> int:
    try:
        inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
        return sum(file.lstat().st_size for file in inside if file.is_symlink() or file.is_file())
    except FileNotFoundError:  # removed, or whole, since it was found
        return 0


def _file() -> Path:
    return settings().workspace / "upstreams.json"


@contextmanager
def _locked() -> Iterator[None]:
    settings().workspace.mkdir(parents=True, exist_ok=True)
    with (settings().workspace / ".upstreams.lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _read() -> list[Card]:
    try:
        return [_card(dict(values)) for values in json.loads(_file().read_text("utf-8"))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Refused(
            f"'{_file()}', the list of added checkpoints, is not readable ({error}). Mend or remove it."
        ) from error


def _card(values: dict[str, Any]) -> Card:
    known: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items() if name in PLAIN
    }
    known["taps"] = tuple(Tap(**tap) for tap in values.get("taps", ()))
    return Card(**known)


def _write(cards: list[Card]) -> None:
    plain = [{name: value for name, value in _values(card).items() if name in PLAIN} for card in cards]
    beside = _file().with_name(f".upstreams.{secrets.token_hex(3)}.{os.getpid()}.tmp")
    beside.write_text(json.dumps(plain, ensure_ascii=False, indent=1), "utf-8")
    os.replace(beside, _file())


def _values(card: Card) -> dict[str, Any]:
    # What is called is no part of what is known of it, and cannot be copied.
    bare = replace(card, open=upstream.described_only, fetch=None, files=None, untrained=None)
    return asdict(bare)
