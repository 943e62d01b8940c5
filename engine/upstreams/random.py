"""The untrained twin of an upstream: `random:NAME`, or `random:NAME#SEED` for another draw.

What a layer of it knows comes from the architecture alone: the baseline of every probe.
"""

from dataclasses import replace

import torch

from engine import upstream
from engine.errors import Refused
from engine.upstream import Card, Family, Upstream

PREFIX = "random:"


def find(name: str) -> Card:
    """The card of the twin: that of the upstream, but for what training gave it."""
    original, _, seed = name.partition("#")
    if seed and not seed.isdecimal():
        raise Refused(f"'{seed}' is no seed: write random:{original}#1, #2 and so on.")
    card = upstream.find(original)
    if card.untrained is None:
        raise Refused(f"{original} has no untrained twin: {'it was never trained' if not card.fetch else 'fetch it first'}.")
    return replace(
        card,
        name=PREFIX + name,
        open=_open,
        source=f"drawn at random, seed {seed or 0}",
        revision=f"{card.revision}#{seed or 0}",
        license="none needed",
        about=f"The untrained twin of {original}.",
        data="",
        bytes=0,
        here=True,
        fetch=None,
        files=None,
        untrained=None,
    )


def _open(card: Card) -> Upstream:
    original, _, seed = card.name.removeprefix(PREFIX).partition("#")
    source = upstream.find(original)
    assert source.untrained is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed or 0))
        twin = source.untrained(source)
    twin.card = card
    return twin


FAMILY = Family(prefix="random", find=find)
