"""From sound to rows: one pass over a corpus through an upstream.

Clips are sorted by length and batched by total sound, decoded ahead on threads, encoded, pooled on the device and
written as they come; a batch that does not fit into memory is halved. The rows end up in the order of the corpus.
"""

import hashlib
import json
import os
import resource
import shutil
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine import audio, rowstore
from engine.corpus import Utterance
from engine.corpus import find as find_corpus
from engine.errors import Refused, Unavailable, Unknown
from engine.memory import ran_out
from engine.precision import Precision, autocast, check
from engine.rows import INDEX, TIERS, Rows, Segments, Unit, layer_file, pool, segments, tap_file, tapped
from engine.rowstore import LayerWriter
from engine.run import Context, write_text
from engine.upstream import SAMPLE_RATE, Card, Upstream, load
from engine.upstream import find as find_upstream

VERSION = 1  # of everything that decides the numbers in a folder of rows; a change makes every key new
BUDGET_SECONDS = {"cpu": 60.0, "cuda": 600.0}  # sound in a batch, padding included
ALIKE = 0.9  # the shortest clip of a batch is at least this much of its longest
AHEAD = 2  # batches that are decoded while one is encoded


def batches(utterances: Sequence[Utterance], budget_seconds: float) -> list[list[Utterance]]:
    """Utterances of like length together, longest first, so many that a padded batch stays within the budget."""
    made: list[list[Utterance]] = []
    for utterance in sorted(utterances, key=lambda utterance: -utterance.seconds):
        longest = made[-1][0].seconds if made else 0.0
        if not made or (len(made[-1]) + 1) * longest > budget_seconds or utterance.seconds < ALIKE * longest:
            made.append([])
        made[-1].append(utterance)
    return made


def rows(
    upstream: str,
    corpus: str,
    ctx: Context,
    *,
    unit: Unit,
    per_clip: int = 0,
    splits: Sequence[str] = (),
    seed: int = 0,
    precision: Precision = "float32",
    taps: Sequence[str] = (),
) -> Rows:
    """The rows of a corpus through an upstream; computed once for each key, whichever process asks.

    With `taps`, what the upstream shows by these names is kept for each frame row beside its states.
    """
    card = find_upstream(upstream)
    if not card.here and card.fetch is not None:
        card.fetch(card, lambda done, total: ctx.progress(done, total, f"fetching {card.name}"))
        card = find_upstream(upstream)  # now it knows its revision
    source = find_corpus(corpus)
    facts: dict[str, Any] = {
        "version": VERSION,
        "upstream": card.name,
        "revision": card.revision,
        "corpus": corpus,
        "content": source.content,
        "unit": unit,
        "per_clip": per_clip if unit == "frame" else 0,
        "seed": seed if unit == "frame" and per_clip else 0,
        "splits": sorted(splits),
        "precision": precision,
    }
    if taps:
        _refuse_taps(card, taps, unit)
        facts["taps"] = list(taps)
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]
    folder = rowstore.folder(key)
    if not folder.exists():
        if slow := check(precision, ctx.device):
            ctx.note(slow)
        rowstore.sweep()
        with rowstore.lock(key, ctx.check):
            if not folder.exists():
                utterances = [item for item in source.utterances() if not splits or item.split in splits]
                _refuse_useless(utterances, corpus, unit, splits)
                _Pass(load(upstream, ctx.device), utterances, ctx, facts).make(rowstore.unfinished(key), folder)
    return Rows(folder)


def _refuse_taps(card: Card, taps: Sequence[str], unit: Unit) -> None:
    if unit != "frame":
        raise Refused(f"Taps are read for frames; the {unit} rows of {card.name} have none.")
    known = {tap.name for tap in card.taps if not tap.codes}
    for name in taps:
        if name not in known:
            raise Unknown(f"tap of {card.name}", name, known)


def _refuse_useless(utterances: Sequence[Utterance], name: str, unit: Unit, splits: Sequence[str]) -> None:
    if not utterances:
        where = f" in {', '.join(splits)}" if splits else ""
        raise Refused(f"{name} has no utterance{where}.")
    if unit in TIERS and not any(utterance.tiers.get(unit) for utterance in utterances):
        tiers = sorted({tier for utterance in utterances for tier in utterance.tiers})
        there = f"its tiers are: {', '.join(tiers)}" if tiers else "it has no tiers; choose the unit frame or utterance"
        raise Refused(f"{name} has no {unit} times; {there}.")


@dataclass
class _Clip:
    """An utterance on its way through the pass."""

    number: int  # its place in the corpus
    utterance: Utterance
    frames: int = 0  # 0 = not encoded
    rows: int = 0
    offset: int = 0  # where its rows begin among those written so far


@dataclass
class _Pass:
    """One pass over a corpus."""

    model: Upstream
    utterances: Sequence[Utterance]
    ctx: Context
    facts: dict[str, Any]
    layers: list[LayerWriter] = field(default_factory=list)
    written: int = 0
    too_short: int = 0
    sound: float = 0.0  # samples encoded
    padded: float = 0.0  # samples encoded with the padding
    change: list[float] = field(default_factory=list)  # of each state by the lower precision, relative to float32

    def make(self, beside: Path, final: Path) -> None:
        """Do the pass in the folder `beside`, then give it its final name."""
        started = time.monotonic()
        shutil.rmtree(beside, ignore_errors=True)  # of a writer that was killed since the sweep
        beside.mkdir(parents=True)
        try:
            clips = [_Clip(number, utterance) for number, utterance in enumerate(self.utterances)]
            self._encode_all(clips, beside)
            clips = [clip for clip in clips if clip.frames]
            if self.too_short:
                self.ctx.note(
                    f"{self.too_short} of {len(self.utterances)} utterances were left out: they have fewer than the "
                    f"{self.model.card.shortest} samples that {self.model.card.name} needs."
                )
            if not self.written:
                raise Refused(f"No utterance of {self.facts['corpus']} gave a row; all were too short or without times.")
            self._finish_layers(clips)
            made_of = ((clip.utterance, self._segments(clip)) for clip in clips)
            rowstore.write_index(beside / INDEX, [clip.utterance for clip in clips], made_of, self.facts["unit"])
            self._write_facts(beside, time.monotonic() - started)
            os.replace(beside, final)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise

    def _encode_all(self, clips: list[_Clip], folder: Path) -> None:
        by_id = {id(clip.utterance): clip for clip in clips}
        budget = BUDGET_SECONDS[self.ctx.device.type]
        total = sum(clip.utterance.seconds for clip in clips)
        done = 0.0
        plan = deque([by_id[id(item)] for item in batch] for batch in batches(self.utterances, budget))
        reading: deque[tuple[list[_Clip], list[Future[Tensor]]]] = deque()
        products = autocast(self.facts["precision"], self.ctx.device)
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads, torch.inference_mode(), products:
            try:
                while plan or reading:
                    while plan and len(reading) <= AHEAD:
                        batch = plan.popleft()
                        reading.append((batch, [threads.submit(_decode, clip.utterance) for clip in batch]))
                    batch, futures = reading.popleft()
                    self._encode(batch, [future.result() for future in futures], folder)
                    done += sum(clip.utterance.seconds for clip in batch)
                    self.ctx.progress(done, total, "reading and encoding")
            finally:
                threads.shutdown(cancel_futures=True)

    def _encode(self, batch: list[_Clip], wavs: list[Tensor], folder: Path) -> None:
        """Encode a batch and write its rows; in two halves when it does not fit into memory."""
        self.ctx.check()
        long_enough = [wav.numel() >= self.model.card.shortest for wav in wavs]
        self.too_short += long_enough.count(False)
        batch = [clip for clip, fits in zip(batch, long_enough, strict=True) if fits]
        wavs = [wav for wav, fits in zip(wavs, long_enough, strict=True) if fits]
        waiting = deque([(batch, wavs)] if batch else [])
        while waiting:
            clips, sounds = waiting.popleft()
            pooled = self._pooled(clips, sounds)
            # What the failed attempt held is free again only out here, past the exception.
            if pooled is None:
                if len(clips) == 1:
                    utterance = clips[0].utterance
                    raise Unavailable(
                        f"Utterance {utterance.id} ({utterance.seconds:.0f} s) does not fit into the memory of "
                        f"{self.ctx.device} with {self.model.card.name}. Cut it into shorter pieces."
                    )
                half = len(clips) // 2
                waiting.extendleft([(clips[half:], sounds[half:]), (clips[:half], sounds[:half])])
                continue
            self._write(clips, pooled, folder)

    def _pooled(self, clips: list[_Clip], wavs: list[Tensor]) -> list[Tensor] | None:
        """The rows of a batch, state by state; None when memory ran out."""
        try:
            if self.facts["precision"] != "float32" and not self.change:
                self.change = self._change(wavs[-1].to(self.ctx.device))
            wavs = [wav.to(self.ctx.device) for wav in wavs]
            hidden = self.model.encode(wavs)
            frames = hidden.lengths.tolist()
            parts = []
            for clip, count in zip(clips, frames, strict=True):
                clip.frames = count
                parts.append(self._segments(clip))
                clip.rows = len(parts[-1])
            pooled = [pool(state, parts, self.facts["unit"]).cpu() for state in hidden.states]
            pooled += [self._tapped(name, wavs, parts).cpu() for name in self.facts.get("taps", ())]
        except (torch.cuda.OutOfMemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
            return None
        self.sound += sum(wav.numel() for wav in wavs)
        self.padded += len(wavs) * max(wav.numel() for wav in wavs)
        return pooled

    def _tapped(self, name: str, wavs: list[Tensor], parts: Sequence[Segments]) -> Tensor:
        card = self.model.card
        hop = next(tap.hop for tap in card.taps if tap.name == name) / card.sample_rate
        shown = self.model.tap(wavs, name)[name]
        return torch.cat([tapped(clip, part.times[:, 0], hop) for clip, part in zip(shown, parts, strict=True)])

    def _segments(self, clip: _Clip) -> Segments:
        facts, hop = self.facts, self.model.card.hop_seconds
        return segments(clip.utterance, facts["unit"], clip.frames, hop, facts["per_clip"], facts["seed"])

    def _change(self, wav: Tensor) -> list[float]:
        """What the lower precision does to each state of one clip: norm of the difference over the norm."""
        low = self.model.encode([wav]).states
        with torch.autocast(self.ctx.device.type, enabled=False):
            exact = self.model.encode([wav]).states
        return [float((one - other).norm() / other.norm()) for one, other in zip(low, exact, strict=True)]

    def _write(self, clips: list[_Clip], pooled: list[Tensor], folder: Path) -> None:
        taps = self.facts.get("taps", ())
        names = [*map(layer_file, range(len(pooled) - len(taps))), *map(tap_file, taps)]
        if not self.layers:
            self.layers = [LayerWriter(folder / name, rows.shape[1]) for name, rows in zip(names, pooled, strict=True)]
        for number, (layer, new) in enumerate(zip(self.layers, pooled, strict=True)):
            values = new.numpy()
            if not np.isfinite(values).all():
                where = ", ".join(clip.utterance.id for clip in clips[:3])
                state = f"state {number}" if number < len(names) - len(taps) else f"tap {taps[number - len(names)]}"
                raise Refused(f"{self.model.card.name} gave values that are not finite in {state} for a batch with {where}.")
            layer.append(values)
        for clip in clips:
            clip.offset = self.written
            self.written += clip.rows

    def _finish_layers(self, clips: list[_Clip]) -> None:
        order = [(clip.offset, clip.rows) for clip in clips]
        for number, layer in enumerate(self.layers):
            self.ctx.progress(number, len(self.layers), "putting rows in order")
            layer.finish(order, self.written)

    def _write_facts(self, folder: Path, wall: float) -> None:
        card = self.model.card
        seconds = self.sound / SAMPLE_RATE
        facts = {
            **self.facts,
            "rows": self.written,
            "dims": [layer.width for layer in self.layers[: len(self.layers) - len(self.facts.get("taps", ()))]],
            "stored": [str(layer.dtype) for layer in self.layers],
            "utterances": len(self.utterances) - self.too_short,
            "too_short": self.too_short,
            "hop_seconds": card.hop_seconds,
            "frames_per_second": 1 / card.hop_seconds,
            "seconds": seconds,
            "wall_seconds": wall,
            "speed": seconds / max(wall, 1e-9),
            "precision_change": self.change,
            "padding_waste": 1 - self.sound / self.padded,
            "bytes": sum(file.stat().st_size for file in folder.iterdir()),
            "peak_memory": peak_memory(self.ctx.device),
            "device": str(self.ctx.device),
        }
        write_text(folder / "facts.json", json.dumps(facts, indent=1, ensure_ascii=False))


def _decode(utterance: Utterance) -> Tensor:
    return audio.load(utterance.path, start=utterance.start, end=utterance.end).wave


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process held so far: on the GPU where it computes there, else in main memory."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def layers(
    upstream: str, files: Sequence[Path], ctx: Context | None = None
) -> Iterator[tuple[str, list[NDArray[np.float32]]]]:
    """Every layer of every file, one clip at a time: (name of the clip, [(frames, dim) for each state])."""
    device = ctx.device if ctx else torch.device("cpu")
    model = load(upstream, device)
    for number, file in enumerate(files):
        if ctx:
            ctx.progress(number, len(files), "encoding")
        wave = audio.load(file).wave.to(device)
        with torch.inference_mode():
            hidden = model.encode([wave])
        yield file.stem, [state.float().cpu().numpy() for state in hidden.clip(0)]
