"""What the pages say about a model, in words and plain numbers."""

import re
from typing import Any

from engine.hub import Entry
from engine.upstream import SAMPLE_RATE, Tap

UNKNOWN = "not known"


def model(entry: Entry) -> dict[str, Any]:
    """A model as the script takes it: what the list shows and is searched by, and its facts in words."""
    card = entry.card
    head, rest = title(entry)
    deletable = not entry.own and card.fetch is not None and entry.bytes_here + entry.bytes_partial > 0
    return {
        "name": card.name,
        "title": head,
        "rest": card.data or rest,
        "about": card.about,
        "family": card.family,
        "languages": list(card.languages),
        "text": " ".join([card.paper, card.data, card.license, card.source]),
        "layers": card.layers,
        "shape": f"{card.layers} × {_range(card.dims)}" if card.layers else f"{_range(card.dims)} features",
        "parameters": card.parameters,
        "weights": number(card.parameters) if card.parameters else "",
        "bytes": card.bytes or entry.bytes_here,
        "size": size(card.bytes or entry.bytes_here) if card.bytes or entry.bytes_here else "",
        "mark": _mark(entry),
        "part": entry.bytes_partial,
        "partial": size(entry.bytes_partial) if entry.bytes_partial else "",
        "freed": size(entry.bytes_here + entry.bytes_partial) if deletable else "",
        "license": card.license or UNKNOWN,
        "readable": card.here and _learnt(entry),
        "own": entry.own,
        "twin": f"random:{card.name}" if entry.own or card.untrained is not None else "",
        "facts": facts(entry),
    }


def title(entry: Entry) -> tuple[str, str]:
    """What a person calls a model, and what else its first sentence says."""
    card = entry.card
    head = re.split(r"[,:;.](?:\s|$)|\s\(", card.about)[0]
    if entry.own or not _learnt(entry) or not head or len(head) > 36:
        return re.split(r"[:/]", card.name)[-1], card.about
    return head, card.about[len(head) :].lstrip(" ,:;.")


def _mark(entry: Entry) -> str:
    if entry.own:
        return "own"
    if entry.card.name.startswith("job:"):
        return "trained"
    if entry.card.here:
        return "here" if entry.card.fetch is not None else "built in"
    return "part" if entry.bytes_partial else "away"


def _learnt(entry: Entry) -> bool:
    """Whether it has weights at all."""
    return entry.own or entry.card.untrained is not None or entry.card.fetch is not None


def facts(entry: Entry) -> list[tuple[str, str, str]]:
    """What is known of a model: label, text and the address that the text leads to. Gaps that matter are named."""
    card = entry.card
    gap = UNKNOWN if _learnt(entry) else ""
    paper = re.search(r"arXiv:(\d{4}\.\d{4,5})", card.paper)
    is_address = card.source.startswith(("https://", "http://"))
    held = size(entry.bytes_here) if entry.bytes_here else size(card.bytes) if entry.own and card.bytes else ""
    states = f"{len(card.dims)} states of {_range(card.dims)} numbers" if card.layers else f"{_range(card.dims)} numbers"
    hop = f"one every {card.hop_seconds * 1000:g} ms ({card.hop:,} samples at {card.sample_rate:,} Hz)"
    told = [
        ("Trained on", card.data or gap, ""),
        ("Probes find", card.measured, ""),
        ("Paper", card.paper or gap, f"https://arxiv.org/abs/{paper[1]}" if paper else ""),
        ("Licence", card.license or gap, ""),
        ("Weights", f"{card.parameters:,}" if card.parameters else gap, ""),
        ("Layers", f"{card.layers} blocks; {states}" if card.layers else states, ""),
        ("Frames", f"{hop}; shortest clip {card.shortest / SAMPLE_RATE * 1000:g} ms", ""),
        ("Long clips", f"heard in overlapping windows of {card.window:g} s" if card.window else "heard whole", ""),
        ("Attention", "maps of every block" if card.attention else "no maps", ""),
        ("Gradient", "" if card.differentiable else "does not reach the sound", ""),
        ("Taps", _taps(card.taps) or "none", ""),
        ("From", card.source, card.source if is_address else ""),
        ("Revision", card.revision[:40], ""),
        ("On disk", held, ""),
        ("To fetch", "" if card.here else size(card.bytes) if card.bytes else UNKNOWN, ""),
    ]
    return [fact for fact in told if fact[1]]


def _taps(taps: tuple[Tap, ...]) -> str:
    """Numbered taps as a range: "conv1 to conv7; codes, 2 of 320"."""
    numbered: dict[str, list[str]] = {}
    for tap in taps:
        numbered.setdefault(tap.name.rstrip("0123456789"), []).append(
            f"{tap.name}, {tap.dim} of {tap.entries:,}" if tap.codes else tap.name
        )
    return "; ".join(names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}" for names in numbered.values())


def report(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """How the weights of a file went into the network, in words."""
    unused = list(facts.get("unused", []))
    some = f"{', '.join(unused[:4])}{' ...' if len(unused) > 4 else ''}"
    left = f"{len(unused):,} names of the file that are no part of the network: {some}" if unused else "nothing"
    return [
        ("Tensors taken", f"{facts['tensors']:,}"),
        ("Weights", f"{facts['parameters']:,}"),
        ("Left out", left),
        ("Layers", f"{facts['layers']} blocks"),
        ("Widths of the states", _range(facts["dims"])),
    ]


def size(count: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("bytes", "kB", "MB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 9.95 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"


def number(count: float) -> str:
    """A number of weights as a person reads it: "94 M"."""
    for unit in ("", " k", " M"):
        if count < 999.5:
            return f"{count:.0f}{unit}" if not unit or count >= 9.95 else f"{count:.1f}{unit}"
        count /= 1000
    return f"{count:.1f} G"


def _range(dims: tuple[int, ...] | list[int]) -> str:
    low, high = min(dims), max(dims)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
