"""Where rows lie: one folder for each key, made under another name by one process at a time and renamed when whole."""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.corpus import Utterance
from engine.rows import TIERS, Segments, Unit
from engine.settings import settings

INDEXED = 500  # clips whose rows are put into the index at a time
LOSS = 2e-3  # of a batch of rows, in norm: what float16 may change; more, and the layer is stored as float32


def folder(key: str) -> Path:
    """Where the rows of a key lie once they are whole."""
    return settings().rows / key


@contextlib.contextmanager
def lock(key: str, check: Callable[[], None]) -> Iterator[None]:
    """Be the only process that makes the rows of a key; `check` is called while waiting and may raise."""
    settings().rows.mkdir(parents=True, exist_ok=True)
    with (settings().rows / f".{key}.lock").open("a") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                check()
                time.sleep(0.1)
        yield


def unfinished(key: str) -> Path:
    """Where the rows of a key lie while they are made."""
    return settings().rows / f".{key}.tmp"


def sweep() -> None:
    """Remove what killed writers left: unfinished folders whose key nobody holds."""
    for left in settings().rows.glob(".*.tmp"):
        with (settings().rows / f"{left.stem}.lock").open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(left, ignore_errors=True)


class LayerWriter:
    """The rows of one state, written as they come as float16, or as float32 from the first that float16 would change."""

    def __init__(self, file: Path, width: int) -> None:
        self.file = file
        self.width = width
        self.dtype: np.dtype[Any] = np.dtype(np.float16)
        self.raw = file.with_suffix(".raw")
        self.raw.touch()

    def append(self, values: NDArray[np.float32]) -> None:
        if self.dtype == np.float16 and not _fits_half(values):
            self._widen()
        with self.raw.open("ab") as handle:
            handle.write(np.ascontiguousarray(values, dtype=self.dtype).tobytes())

    def _widen(self) -> None:
        self.dtype = np.dtype(np.float32)
        wide = self.raw.with_suffix(".wide")
        with self.raw.open("rb") as source, wide.open("wb") as target:
            while block := source.read(1 << 24):
                target.write(np.frombuffer(block, dtype=np.float16).astype(np.float32).tobytes())
        os.replace(wide, self.raw)

    def finish(self, order: list[tuple[int, int]], total: int) -> None:
        """Write the array file with the rows in the order given, and drop the raw one."""
        with self.file.open("wb") as target, self.raw.open("rb") as source:
            header = {
                "descr": np.lib.format.dtype_to_descr(self.dtype),
                "fortran_order": False,
                "shape": (total, self.width),
            }
            np.lib.format.write_array_header_1_0(target, header)
            size = self.width * self.dtype.itemsize
            for offset, count in order:
                source.seek(offset * size)
                target.write(source.read(count * size))
        self.raw.unlink()


def _fits_half(values: NDArray[np.float32]) -> bool:
    with np.errstate(over="ignore"):
        change = np.linalg.norm(values - values.astype(np.float16).astype(np.float32))
    return bool(change <= LOSS * np.linalg.norm(values))


def write_index(file: Path, utterances: Sequence[Utterance], rows: Iterable[tuple[Utterance, Segments]], unit: Unit) -> None:
    """Write what each row is, in the order given, a part at a time."""
    import pandas
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    tiers = [tier for tier in TIERS if any(tier in utterance.tiers for utterance in utterances)]
    tiers = {"utterance": [], "word": [tier for tier in tiers if tier == "word"]}.get(unit, tiers)
    columns = ["utterance", "speaker", "split", "start", "end", *tiers]
    # The label of a row goes before a label of the whole clip that has the same name.
    own = sorted({name for utterance in utterances for name in utterance.labels} - {*columns})
    kinds = [(name, pyarrow.float64() if name in {"start", "end"} else pyarrow.string()) for name in (*columns, *own)]
    rows = iter(rows)
    with parquet.ParquetWriter(file, pyarrow.schema(kinds)) as writer:
        while part := list(islice(rows, INDEXED)):
            table: dict[str, list[Any]] = {name: [] for name, _ in kinds}
            for utterance, segments in part:
                count = len(segments)
                table["utterance"] += [utterance.id] * count
                table["speaker"] += [utterance.speaker] * count
                table["split"] += [utterance.split] * count
                table["start"] += segments.times[:, 0].tolist()
                table["end"] += segments.times[:, 1].tolist()
                for tier in tiers:
                    table[tier] += segments.labels.get(tier, [""] * count)
                for name in own:
                    table[name] += [str(utterance.labels.get(name, ""))] * count
            writer.write_table(pyarrow.Table.from_pandas(pandas.DataFrame(table), writer.schema, preserve_index=False))
