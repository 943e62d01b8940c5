"""Writes every layer of an upstream for some sounds, one array each."""

import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from engine import audio, upstream
from engine.errors import Refused
from engine.run import choose_device
from engine.settings import settings


def write_layers(name: str, sounds: Sequence[Path], out: Path) -> Iterator[str]:
    """Write `"{clip}/{layer}"` -> float32 (frames, dim) for each clip and layer, and `hop_seconds`, to an .npz file.

    A clip is called as its file without the ending, and counted where two would be called alike. Says what was written.
    """
    if out.suffix != ".npz":
        raise Refused(f"{out} does not end with .npz, which is what is written.")
    if not out.parent.is_dir():
        raise Refused(f"There is no folder {out.parent} to write {out.name} in.")
    loaded = [(clip, audio.load(sound)) for clip, sound in zip(_clips(sounds), sounds, strict=True)]
    card = upstream.find(name)
    model = upstream.load(name, choose_device(settings().device))
    beside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with zipfile.ZipFile(beside, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for clip, sound in loaded:
                with torch.inference_mode():
                    states = model.encode([sound.wave.to(model.device)]).clip(0)
                for layer, state in enumerate(states):
                    _write(archive, f"{clip}/{layer}", state.float().cpu().numpy())
                shapes = {tuple(state.shape) for state in states}
                shape = " or ".join(str(shape) for shape in sorted(shapes))
                yield f"{clip}: layers 0 to {len(states) - 1}, each {shape}, one frame every {card.hop_seconds * 1000:g} ms"
                for change in sound.changes:
                    yield f"{clip}: {change}"
            _write(archive, "hop_seconds", np.float64(card.hop_seconds))
        os.replace(beside, out)
    finally:
        beside.unlink(missing_ok=True)
    yield f"Written to {out}."


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
