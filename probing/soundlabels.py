"""Labels that the sound gives by itself, as numbers for each row: pitch, loudness, voicing and their kin.

Each is the mean of a 10 ms track of `engine.acoustics` over the time of the row; pitch over voiced frames alone, in
semitones. Two are of the whole utterance: the rate of speech, and how far the speech stands out of the background.
"""

import math
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from engine import acoustics, audio, corpus
from engine.corpus import Utterance
from engine.errors import Refused, Unknown
from engine.rows import TIERS, Rows
from engine.run import Context

if TYPE_CHECKING:
    from pandas import DataFrame

    Values = np.ndarray[Any, np.dtype[np.float64]]

UNITS = {**acoustics.TRACKS, "rate": "phones (or words) a second", "signal to noise": "dB"}
NAMES = tuple(UNITS)
SILENCE = {"", "sil", "sp", "spn", "pau", "h#"}  # of the usual phone sets


def values(rows: Rows, name: str, ctx: Context) -> "Values":
    """(rows,) the label called `name`, in its unit of UNITS; NaN where there is none, such as the pitch of a hiss."""
    return means(rows.facts["corpus"], rows.index, [name], ctx)[name]


def means(source: str, index: "DataFrame", names: Sequence[str], ctx: Context) -> dict[str, "Values"]:
    """Several labels of stretches of a corpus; `index` has the columns utterance, start and end. Each clip is read once."""
    for name in names:
        if name not in UNITS:
            raise Unknown("label of the sound", name, NAMES)
    every = {utterance.id: utterance for utterance in corpus.find(source).utterances()}
    places = index.groupby("utterance", sort=False).indices
    gone = [str(name) for name in places if str(name) not in every]
    if gone:
        raise Refused(f"{source} has no utterance '{gone[0]}' any more, so its sound cannot be read. Make the rows again.")
    tier = _tier(every.values(), source) if "rate" in names else ""
    found = {name: np.full(len(index), np.nan) for name in names}
    starts, ends = (index[column].to_numpy(dtype=np.float64) for column in ("start", "end"))

    def one(key: Any) -> dict[str, "Values"]:
        ctx.check()
        rows = places[key]
        return _of(every[str(key)], starts[rows], ends[rows], names, tier)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        try:
            for done, (key, mine) in enumerate(zip(places, threads.map(one, places), strict=True)):
                for name, numbers in mine.items():
                    found[name][places[key]] = numbers
                ctx.progress(done + 1, len(places), "listening to the sound")
        finally:
            threads.shutdown(cancel_futures=True)
    return found


def _of(utterance: Utterance, starts: "Values", ends: "Values", names: Sequence[str], tier: str) -> dict[str, "Values"]:
    found = {}
    tracks = [name for name in names if name in acoustics.TRACKS]
    if tracks or "signal to noise" in names:
        wave = audio.load(utterance.path, start=utterance.start, end=utterance.end).wave
        for name, track in acoustics.tracks(wave, tracks).items():
            found[name] = acoustics.over(track.double().numpy(), starts, ends)
        if "signal to noise" in names:
            found["signal to noise"] = np.full(len(starts), acoustics.signal_to_noise(wave))
    if "rate" in names:
        found["rate"] = np.full(len(starts), _rate(utterance, tier))
    return found


def _tier(utterances: Iterable[Utterance], source: str) -> str:
    """What is counted for the rate: phones where the corpus has their times, else words."""
    there = {tier for utterance in utterances for tier, spans in utterance.tiers.items() if spans}
    for tier in TIERS:
        if tier in there:
            return tier
    raise Refused(f"{source} has neither phone nor word times, so its rate of speech is not known. Choose another label.")


def _rate(utterance: Utterance, tier: str) -> float:
    """Phones or words a second, from the start of the first to the end of the last; silence before and after is left out."""
    spans = [span for span in utterance.tiers.get(tier, ()) if span.label.lower() not in SILENCE]
    seconds = max((span.end for span in spans), default=0.0) - min((span.start for span in spans), default=0.0)
    return len(spans) / seconds if seconds > 0 else math.nan
