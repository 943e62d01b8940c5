"""Checkpoints in the layouts of their authors: `s3prl:FILE`, `author:FILE`, and the published ones by name.

A file of engine/upstreams that holds a `Layout` says how one kind of checkpoint is told from others by its names, what
its card is, and which network its weights go into. Everything else is the same for all of them and stands here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from torch import Tensor

from engine import download, weights
from engine.errors import Refused, Unknown
from engine.registry import Registry
from engine.settings import settings
from engine.upstream import Card, Upstream
from engine.weights import Checkpoint


@dataclass(frozen=True)
class Layout:
    """A way in which somebody writes checkpoints of one architecture."""

    name: str  # for a person: "modified CPC, as CPC_audio saves it"
    prefix: str  # whose layout it is: "author" or "s3prl"
    recognises: Callable[[Checkpoint], bool]  # by the names of tensors and settings; cheap, and false for every other layout
    describe: Callable[[Checkpoint], Card]  # the card, but for what is the same for all: name, open, source, revision
    build: Callable[[Card, Checkpoint], Upstream]  # the network, as a new one is before it has learnt anything
    # The weights under the network's names, all of them and only these; and the names that are left out with reason.
    weights: Callable[[Checkpoint], tuple[Mapping[str, Tensor], Sequence[str]]]
    published: tuple[Card, ...] = ()  # checkpoints to be had on the network: name, source (the address), bytes and all
    beside: Callable[[Path], Sequence[Path]] = lambda file: ()  # other files that such a file stands on: a dictionary
    needs: tuple[str, ...] = ()  # published checkpoints that the published ones of this layout stand on


LAYOUTS: Registry[Layout] = Registry(Layout, "engine.upstreams")


def published(prefix: str) -> Iterator[Card]:
    """The published checkpoints of these layouts; asks only whether their files are here."""
    for layout in LAYOUTS.instances():
        if layout.prefix == prefix:
            needed = _needed(layout)
            for card in layout.published:
                here = all(_place(each).exists() for each in (*needed, card))
                yield replace(card, here=here, open=open_checkpoint, fetch=fetch, files=_files)


def find(prefix: str, place: str) -> Card:
    """The card of a file in one of the layouts, or of a published checkpoint by name."""
    known = {card.name: card for card in published(prefix)}
    card = known.get(f"{prefix}:{place}")
    if card is not None and not card.here:
        return card
    file = Path(place).expanduser() if card is None else _place(card)
    if card is None and not file.exists() and not place.startswith((".", "/", "~")) and "/" not in place:
        raise Unknown(f"{prefix} checkpoint", place, [name.removeprefix(f"{prefix}:") for name in known])
    checkpoint, layout = _recognised(file, prefix)
    described = layout.describe(checkpoint)
    files = (file, *layout.beside(file))
    facts = dict(
        name=f"{prefix}:{place}",
        open=open_checkpoint,
        untrained=untrained,
        revision=weights.stamp(*files),
        bytes=sum(each.stat().st_size for each in files),
    )
    if card is None:
        return replace(described, source=str(file), **facts)  # type: ignore[arg-type]
    shape = {name: getattr(described, name) for name in ("layers", "dims", "hop", "shortest", "taps", "window", "attention")}
    return replace(card, **shape, **facts)  # type: ignore[arg-type]


def recognise(file: Path) -> str:
    """What to call the upstream in a file: its path after the prefix of the layout that it has."""
    _, layout = _recognised(file, "")
    return f"{layout.prefix}:{file}"


def _recognised(file: Path, prefix: str) -> tuple[Checkpoint, Layout]:
    checkpoint = weights.read(file)
    layouts = [layout for layout in LAYOUTS.instances() if not prefix or layout.prefix == prefix]
    for layout in layouts:
        if layout.recognises(checkpoint):
            return checkpoint, layout
    elsewhere = [layout for layout in LAYOUTS.instances() if layout not in layouts and layout.recognises(checkpoint)]
    if elsewhere:
        raise Refused(f"'{file}' is {elsewhere[0].name}: write '{elsewhere[0].prefix}:{file}'.")
    names = ", ".join(sorted(checkpoint.tensors)[:3])
    kinds = "; ".join(layout.name for layout in layouts)
    raise Refused(
        f"'{file}' holds {len(checkpoint.tensors)} tensors ({names} ...), which is no layout that can be read. "
        f"Those that can: {kinds}."
    )


def open_checkpoint(card: Card) -> Upstream:
    """Read the weights into the network, strictly; they are fetched first where they are not here."""
    prefix, _, place = card.name.partition(":")
    if not card.here and card.fetch is not None:
        card.fetch(card, lambda done, total: None)
        card = find(prefix, place)
    file = _file(card)
    checkpoint, layout = _recognised(file, prefix)
    network = layout.build(card, checkpoint)
    given, unused = layout.weights(checkpoint)
    network.loaded = weights.fit(network, given, f"'{file}'", tuple(unused))
    return network


def untrained(card: Card) -> Upstream:
    """The same network before it has learnt anything."""
    checkpoint, layout = _recognised(_file(card), card.name.partition(":")[0])
    return layout.build(card, checkpoint)


def fetch(card: Card, progress: Callable[[float, float], None]) -> None:
    """Bring a published checkpoint into the workspace, and before it those that it stands on."""
    layout = next(layout for layout in LAYOUTS.instances() if any(card.name == each.name for each in layout.published))
    for each in (*_needed(layout), card):
        download.fetch(each.source, _place(each), progress)


def _needed(layout: Layout) -> list[Card]:
    """The published checkpoints that those of a layout stand on."""
    if not layout.needs:
        return []
    return [card for each in LAYOUTS.instances() for card in each.published if card.name in layout.needs]


def _files(card: Card) -> list[Path]:
    file = _place(card)
    return [*download.traces(file), *weights.conversions(file)]


def _file(card: Card) -> Path:
    """Where the weights of a card lie."""
    prefix, _, place = card.name.partition(":")
    known = next((known for known in published(prefix) if known.name == card.name), None)
    return Path(place).expanduser() if known is None else _place(known)


def _place(card: Card) -> Path:
    prefix, _, place = card.name.partition(":")
    return settings().downloads / prefix / f"{place}{Path(urlsplit(card.source).path).suffix}"
