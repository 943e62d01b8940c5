"""Labels that nobody gave: which cluster the sound belongs to at each frame, and what these clusters know of phones."""

import hashlib
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine import clusters, information, ranks
from engine.corpus import Span
from engine.errors import Refused
from engine.pretext import Before, Piece
from engine.rows import segments
from engine.upstream import Upstream

KNOWN = 500_000  # clips whose labels are kept: a gigabyte, were they all as long as can be
SHOWN = ("inertia", "phone_purity", "cluster_purity", "pnmi")  # as curves, with a point for each round
POLL = 0.2  # seconds from one look for the file of the first process to the next


class ClusterLabels:
    """Gives each frame of a network the number of the cluster that a layer of another upstream is nearest to there."""

    def __init__(self, source: Upstream, layer: int, centres: Tensor) -> None:
        self.source, self.layer, self.centres = source, layer, centres
        self._known: dict[bytes, Tensor] = {}  # a clip that has left the memory of the training comes again and again

    @property
    def clusters(self) -> int:
        """How many there are."""
        return len(self.centres)

    def features(self, wave: Tensor) -> Tensor:
        """(frames of the source, width): what is clustered."""
        with torch.no_grad():
            return self.source.encode([wave.to(self.source.device)]).clip(0)[self.layer].float()

    def __call__(self, wave: Tensor, frames: int, hop_seconds: float) -> Tensor:
        """(frames,) for a network whose frames lie `hop_seconds` apart: each takes what the source has where it begins."""
        clip = hashlib.blake2b(wave.numpy().tobytes(), digest_size=16).digest()
        found = self._known.get(clip)
        if found is None:
            found = clusters.assign(self.features(wave), self.centres).cpu().to(torch.int16)
            if len(self._known) < KNOWN:
                self._known[clip] = found
        place = torch.arange(frames, dtype=torch.float64) * (hop_seconds / self.source.card.hop_seconds)
        return found[(place + 1e-6).long().clamp(max=len(found) - 1)].long()


def learnt(
    before: Before, source: Upstream, layer: int, count: int, sampled: int, seed: int, begun: int
) -> tuple[ClusterLabels, list[dict[str, Any]]]:
    """Labels by k-means over some of the sound, and how good the clusters of this round and those before are.

    Both stay in the folder of the run: a run that is resumed goes on with the labels that it had, and of several processes
    the first finds them for all. `begun` steps were taken by the rounds before.
    """
    folder = before.ctx.folder / "artifacts" / "clusters"
    files = [folder / f"round-{number + 1}.safetensors" for number in range(before.round + 1)]
    file = files[-1]
    while ranks.rank() and not file.exists():
        before.ctx.check()
        time.sleep(POLL)
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        centres, facts = _cluster(before, source, layer, count, sampled, seed)
        _write(file, centres, facts)
        before.ctx.note(_told(before.round, facts))
        before.ctx.metric(begun, **{name: facts[name] for name in SHOWN if name in facts})
    centres, _ = _read(file)
    return ClusterLabels(source, layer, centres.to(source.device)), [_read(each)[1] for each in files]


def quality(found: Tensor, phones: list[str]) -> dict[str, float]:
    """What clusters know of the phones of the same frames, as Hsu et al. 2021 measure it; frames without one are left out.

    Phone purity: how often the phone is the usual one of its cluster. Cluster purity: how often the cluster is the usual one
    of its phone. PNMI: the share of the uncertainty about the phone that the cluster takes away.
    """
    names = {name: number for number, name in enumerate(sorted(set(phones) - {""}))}
    if not names:
        return {}
    known = torch.tensor([name != "" for name in phones])
    labels = torch.tensor([names[name] for name in phones if name])
    found = found[known]
    unsure = information.entropy(labels)
    return {
        "phone_purity": information.purity(found, labels),
        "cluster_purity": information.purity(labels, found),
        "pnmi": information.mutual(found, labels) / unsure if unsure else 0.0,
    }


def phones_at(piece: Piece, frames: int, hop_seconds: float) -> list[str]:
    """The phone at the middle of each frame of a piece; empty where none is known."""
    offset = piece.start - piece.utterance.start
    spans = [Span(span.start - offset, span.end - offset, span.label) for span in piece.utterance.tiers.get("phone", ())]
    rows = segments(replace(piece.utterance, tiers={"phone": tuple(spans)}), "frame", frames, hop_seconds)
    return rows.labels["phone"]


def _cluster(
    before: Before, source: Upstream, layer: int, count: int, sampled: int, seed: int
) -> tuple[Tensor, dict[str, Any]]:
    reader = ClusterLabels(source, layer, torch.empty(0))
    order = torch.randperm(len(before.sound), generator=torch.Generator().manual_seed(seed)).tolist()
    heard: list[tuple[int, Tensor]] = []
    total = 0
    while order and total < sampled:
        number = order.pop()
        heard.append((number, reader.features(before.sound.wave(number))))
        total += len(heard[-1][1])
        before.ctx.progress(min(total, sampled), sampled, "listening for clusters")
    # The last tenth of what was heard has no part in the clusters, so that it can tell how good they are.
    parted = max(1, len(heard) * 9 // 10)
    x = torch.cat([features for _, features in heard[:parted]])
    if len(x) < count:
        raise Refused(f"{len(x)} frames of sound cannot be parted into {count} clusters. Take fewer clusters or more sound.")
    centres = clusters.kmeans(x, count, seed=seed)
    tested = heard[parted:] or heard
    found = [clusters.assign(features, centres).cpu() for _, features in tested]
    hop = source.card.hop_seconds
    phones = [
        phone
        for (number, _), labels in zip(tested, found, strict=True)
        for phone in phones_at(before.sound.pieces[number], len(labels), hop)
    ]
    facts = {
        "of": source.card.name if before.round == 0 else f"round {before.round}",
        "layer": layer if layer >= 0 else len(source.card.dims) + layer,
        "clusters": count,
        "used": int((torch.bincount(clusters.assign(x, centres)) > 0).sum()),
        "frames": len(x),
        "inertia": clusters.inertia(x, centres),
        "held_out_inertia": clusters.inertia(torch.cat([features for _, features in tested]), centres),
        **quality(torch.cat(found), phones),
    }
    return centres.cpu(), facts


def _told(number: int, facts: dict[str, Any]) -> str:
    sentence = (
        f"Round {number + 1} learns from {facts['clusters']} clusters of layer {facts['layer']} of {facts['of']}, of which "
        f"{facts['used']} are in use; the mean squared distance from their centres is {facts['inertia']:.4g}"
    )
    if "pnmi" not in facts:
        return f"{sentence}. The corpus has no phones to compare them with."
    return (
        f"{sentence}. On other clips their phone purity is {facts['phone_purity']:.3f}, their cluster purity "
        f"{facts['cluster_purity']:.3f}, and they tell {facts['pnmi']:.1%} of what there is to know of the phone."
    )


def _write(file: Path, centres: Tensor, facts: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    beside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    save_file({"centres": centres.contiguous()}, beside, metadata={"facts": json.dumps(facts)})
    beside.replace(file)


def _read(file: Path) -> tuple[Tensor, dict[str, Any]]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        facts: dict[str, Any] = json.loads(opened.metadata()["facts"])
        return opened.get_tensor("centres"), facts
