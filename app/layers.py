"""Shows, and writes where that is wanted, every layer of an upstream for some sounds."""

import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from engine import audio, upstream
from engine.errors import Refused
from engine.run import choose_device
from engine.settings import settings


@dataclass(frozen=True)
class Shown:
    """One array of one clip."""

    clip: str
    layer: str  # "0", "12", or the name of a tap
    shape: tuple[int, ...]  # (frames, dim)
    hop_seconds: float


def layers(name: str, sounds: Sequence[Path], out: Path | None = None, taps: Sequence[str] = ()) -> Iterator[Shown | str]:
    """Every layer of every clip, then the taps that are asked for ("all" for all); what was changed in a sound, as text.

    With `out`, `"{clip}/{layer}"` -> float32 (frames, dim) goes to an .npz file, with `hop_seconds` of the layers and
    `"{tap}/hop_seconds"` of each tap. A clip is called as its file without the ending, and counted where two would be
    called alike.
    """
    if out is not None and out.suffix != ".npz":
        raise Refused(f"{out} does not end with .npz, which is what is written.")
    if out is not None and not out.parent.is_dir():
        raise Refused(f"There is no folder {out.parent} to write {out.name} in.")
    loaded = [(clip, audio.load(sound)) for clip, sound in zip(_clips(sounds), sounds, strict=True)]
    card = upstream.find(name)
    model = upstream.load(name, choose_device(settings().device))
    card = model.card  # what was fetched may tell more
    hops = {tap.name: tap.hop / card.sample_rate for tap in card.taps}
    wanted = tuple(hops) if "all" in taps else tuple(taps)
    with ExitStack() as cleaning:
        archive = None
        if out is not None:
            beside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
            cleaning.callback(beside.unlink, missing_ok=True)
            archive = cleaning.enter_context(zipfile.ZipFile(beside, "w", zipfile.ZIP_STORED, allowZip64=True))
        for clip, sound in loaded:
            wave = sound.wave.to(model.device)
            with torch.inference_mode():
                found = {str(layer): state for layer, state in enumerate(model.encode([wave]).clip(0))}
                if wanted:
                    found |= {tap: clips[0] for tap, clips in model.tap([wave], *wanted).items()}
            for layer, array in found.items():
                if archive is not None:
                    _write(archive, f"{clip}/{layer}", (array.float() if array.is_floating_point() else array).cpu().numpy())
                yield Shown(clip, layer, tuple(array.shape), hops.get(layer, card.hop_seconds))
            yield from (f"{clip}: {change}" for change in sound.changes)
        if archive is not None and out is not None:
            _write(archive, "hop_seconds", np.float64(card.hop_seconds))
            for tap in wanted:
                _write(archive, f"{tap}/hop_seconds", np.float64(hops[tap]))
            archive.close()
            os.replace(beside, out)


def said(shown: Iterable[Shown | str]) -> Iterator[str]:
    """The same in words, layers of one shape together."""
    for key, group in groupby(shown, _alike):
        if isinstance(key, str):
            yield from map(str, group)
            continue
        names = [one.layer for one in group if isinstance(one, Shown)]
        clip, shape, hop, numbered = key
        which = f"{'layer' if numbered else 'tap'}{'s' if len(names) > 1 else ''}"
        span = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}, each"
        yield f"{clip}: {which} {span} {shape}, one frame every {hop * 1000:g} ms"


def _alike(one: Shown | str) -> str | tuple[str, tuple[int, ...], float, bool]:
    return one if isinstance(one, str) else (one.clip, one.shape, one.hop_seconds, one.layer.isdecimal())


def _clips(sounds: Sequence[Path]) -> list[str]:
    clips: list[str] = []
    for sound in sounds:
        number, clip = 1, sound.stem
        while clip in clips:
            number += 1
            clip = f"{sound.stem}-{number}"
        clips.append(clip)
    return clips


def _write(archive: zipfile.ZipFile, name: str, array: "np.ndarray | np.float64") -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as handle:
        np.lib.format.write_array(handle, np.asarray(array), allow_pickle=False)
