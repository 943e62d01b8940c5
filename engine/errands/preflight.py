"""Tries a training before it is started: what it will need, whether it fits, and what its first batch sounds like."""

import gc
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch
import yaml
from pydantic import Field, ValidationError
from torch import Tensor

from engine import audio, corpus, upstream
from engine.errors import AuscultError, Refused
from engine.pretext import PRETEXTS, Pretext, Round
from engine.run import Context, Figure, Result, RunSpec, Value
from engine.training.fit import fit
from engine.training.plan import snapshots

STEPS = 4  # of the first batches that are tried
SHOWN = 4  # clips of the first batch that are drawn and played
ROOM = 0.9  # share of the free memory that a training may take
PEAK = Path("/proc/self/clear_refs")  # writing 5 to it makes the system forget the highest memory so far (Linux)


class Preflight(RunSpec):
    """Takes the first batches of a training through the network and back, and tells what the whole will need.

    Its largest batch is measured for memory, its first ones for time. The first batch is drawn and can be heard as the
    network is given it: silence stands where frames are hidden from it.
    """

    family: ClassVar[str] = "errand"

    training: str = Field(description="The settings of the training as a recipe has them, in YAML or JSON.")

    def needs(self) -> list[str]:
        try:
            return self.spec().needs()
        except AuscultError as error:
            return [str(error)]

    def spec(self) -> Pretext:
        """The training that is tried."""
        try:
            values = yaml.safe_load(self.training)
        except yaml.YAMLError as error:
            raise Refused(f"The settings of the training are no YAML: {error}") from error
        if not isinstance(values, dict):
            raise Refused(
                "The settings of the training name no run; write them as a recipe has them, beginning with 'run:'."
            )
        kind = PRETEXTS.get(str(values.pop("run", "")))
        try:
            return kind(**values)
        except ValidationError as error:
            said = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            raise Refused(f"The settings of {kind.name} are not usable: {said}.") from error

    def run(self, ctx: Context) -> Result:
        spec = self.spec()
        begin = spec.start(ctx)
        prepare = _prepare(spec, begin, ctx)
        drawn, seconds = _draw(spec, begin, ctx)
        static, peak, step, file = _try(spec, begin, ctx)
        weights = sum(weight.numel() for weight in begin.network.parameters()) * 4
        batches = _batches(begin, spec.steps)
        # What is prepared ahead hides behind the step; only what takes longer than a step is waited for, in the first epoch.
        rounds = [spec.round_plan(number) for number in range(spec.rounds)]
        whole = sum(plan.steps * step + min(plan.steps, batches) * max(0.0, prepare - step) for plan in rounds)
        # The last, the best and those on the way.
        copies = 2 + (sum(len(snapshots(plan.steps)) for plan in rounds) if spec.snapshots else 0)
        disk = 2 * file * len(rounds) + copies * weights
        free = _free_memory(ctx.device)
        free_disk = shutil.disk_usage(ctx.folder).free
        advice = _advice(spec, static, peak, free, prepare, step, disk, free_disk, len(begin.order(0)))
        said = (
            f"{spec.title()} would take {_span(whole)}, {peak / 2**30:.2g} GB of memory and {disk / 2**30:.2g} GB of disk."
        )
        for sentence in (said, *advice):
            ctx.note(sentence)
        lines: list[tuple[str, float, str]] = [
            ("memory of the largest batch", peak / 2**30, "GB"),
            ("memory that is free", free / 2**30, "GB"),
            ("one step", step, "s"),
            ("features of a batch, the first time", prepare, "s"),
            ("the whole training", whole / 3600, "h"),
            ("disk", disk / 2**30, "GB"),
            ("disk that is free", free_disk / 2**30, "GB"),
            ("clips in a batch", sum(len(begin.order(number)) for number in range(STEPS)) / STEPS, ""),
            ("sound in the first batch", seconds, "s"),
            ("weights", weights / 4, ""),
        ]
        table: list[dict[str, Value]] = [{"what": what, "value": value, "unit": unit} for what, value, unit in lines]
        figures = [
            Figure(
                "heat",
                f"The first batch of {spec.title()}, as the network is given it",
                x="seconds",
                y="channel",
                value="level",
                slider="clip",
                table=drawn,
                x_title="seconds",
                y_title="mel channel",
                value_title="log mel",
            ),
            Figure("sounds", "The same to listen to", table="sounds.parquet"),
        ]
        source = {"name": spec.corpus, "content": corpus.find(spec.corpus).content}
        return Result(table, figures, {"training": spec.document, "corpus": source, "advice": advice})


def _draw(spec: Pretext, begin: Round, ctx: Context) -> tuple[str, float]:
    """Draw and write the first clips with what is hidden made silent; the table's name, and the seconds of the batch."""
    import pandas

    ctx.progress(1, 3, "drawing the first batch")
    numbers = begin.order(0)
    shown = numbers[:SHOWN]
    hides = begin.objective.hides(begin.learnt.batch(shown, spec.seed, 0, torch.device("cpu")))
    pixels, sounds = [], []
    for place, number in enumerate(shown):
        wave = begin.learnt.sound.wave(number)
        if hides:
            wave = _silenced(wave, hides[place], begin.network.card.hop)
        level = upstream.load("mel").encode([wave]).clip(0)[-1]
        for frame in range(len(level)):
            pixels += [(place + 1, frame / 100, channel, float(level[frame, channel])) for channel in range(level.shape[1])]
        name = f"clip-{place + 1}.wav"
        ctx.artifact(name).write_bytes(audio.wav(wave))
        piece = begin.learnt.sound.pieces[number]
        share = float(hides[place].float().mean()) if hides else 0.0
        sounds.append((name, piece.utterance.id, 0.0, piece.seconds, share))
    name = "batch.parquet"
    pandas.DataFrame(pixels, columns=["clip", "seconds", "channel", "level"]).to_parquet(ctx.artifact(name), index=False)
    columns = ["file", "utterance", "start", "end", "share_hidden"]
    pandas.DataFrame(sounds, columns=columns).to_parquet(ctx.artifact("sounds.parquet"), index=False)
    return name, sum(begin.learnt.sound.seconds[number] for number in numbers)


def _silenced(wave: Tensor, hidden: Tensor, hop: int) -> Tensor:
    silent = hidden.repeat_interleave(hop)[: len(wave)]
    wave = wave.clone()
    wave[: len(silent)][silent] = 0
    return wave


class _Timed(Context):
    """Notes when each step begins."""

    def __init__(self, folder: Path, ctx: Context) -> None:
        super().__init__(folder, device=str(ctx.device), stop=ctx.check)
        self.steps: list[float] = []

    def progress(self, done: float, total: float, stage: str) -> None:
        self.check()
        self.steps.append(time.perf_counter())


def _prepare(spec: Pretext, begin: Round, ctx: Context) -> float:
    """Seconds in which a batch is prepared for the first time."""
    ctx.progress(0, 3, "preparing the first batches")
    began = time.perf_counter()
    for step in range(STEPS):
        ctx.check()
        begin.learnt.batch(begin.order(step), spec.seed, step, torch.device("cpu"))
    return (time.perf_counter() - began) / STEPS


def _try(spec: Pretext, begin: Round, ctx: Context) -> tuple[int, int, float, int]:
    """Some steps of the loop itself, the first with the largest batch of an epoch.

    Memory before and at most, the seconds of a step after the first, and the bytes of a checkpoint.
    """
    ctx.progress(2, 3, "trying the largest batch and the first ones")
    seconds = begin.learnt.sound.seconds
    epoch = [begin.order(step) for step in range(_batches(begin, spec.steps))]
    largest = max(epoch, key=lambda batch: max(seconds[number] for number in batch) * len(batch))
    tried = [largest, *(begin.order(step) for step in range(STEPS))]
    begin.learnt.batch(largest, spec.seed, 0, torch.device("cpu"))
    folder = ctx.folder / "tried"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    timed = _Timed(folder, ctx)
    never = 10_000_000
    plan = replace(spec.plan(), steps=len(tried), checkpoint_every=never, validate_every=never)
    with _watched(ctx) as watch:
        fit(
            begin.objective,
            lambda step: tried[step],
            lambda clips, step: begin.learnt.batch(clips, spec.seed, step, ctx.device),
            plan,
            timed,
        )
    size = sum(file.stat().st_size for file in folder.rglob("*.pt"))
    shutil.rmtree(folder)
    step = (timed.steps[STEPS] - timed.steps[1]) / (STEPS - 1)
    return watch[0], watch[1], step, size


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:,.0f} hours"


def _batches(begin: Round, most: int) -> int:
    """How many batches an epoch has, as far as the training gets."""
    seen, step = 0, 0
    while seen < len(begin.learnt.sound) and step < most:
        seen += len(begin.order(step))
        step += 1
    return step


@contextmanager
def _watched(ctx: Context) -> Iterator[list[int]]:
    """Memory before, and the most of it until the end."""
    gc.collect()
    found: list[int] = []
    if ctx.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(ctx.device)
        found.append(torch.cuda.memory_allocated(ctx.device))
    else:
        if PEAK.exists():
            PEAK.write_text("5")
        found.append(_resident("VmRSS"))
    yield found
    found.append(torch.cuda.max_memory_allocated(ctx.device) if ctx.device.type == "cuda" else _resident("VmHWM"))


def _resident(name: str) -> int:
    """This process's memory now or at most, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text("utf-8").splitlines() if ":" in line)
        return int(lines[name].split()[0]) * 1024
    import psutil

    return int(psutil.Process().memory_info().rss)


def _free_memory(device: torch.device) -> int:
    """What this process may take, with what it has already."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
    import psutil

    return int(psutil.virtual_memory().available + psutil.Process().memory_info().rss)


def _advice(
    spec: Pretext,
    static: int,
    peak: int,
    free: int,
    prepare: float,
    step: float,
    disk: float,
    free_disk: float,
    clips: int,
) -> list[str]:
    """What stands in the way, and the cheapest change that helps."""
    said = []
    if peak > ROOM * free:
        needed = (peak - static) / max(1.0, ROOM * free - static)
        parts = spec.parts * 2 ** math.ceil(math.log2(max(2.0, needed)))
        if parts <= clips:
            change = f"With parts={parts} it would fit and learn the same: each batch is computed in {parts} parts."
        else:
            change = "Even one clip at a time would not fit: choose a smaller network, or shorter clips."
        said.append(f"Its largest batch takes {peak / 2**30:.1f} GB, but only {free / 2**30:.1f} GB are free. {change}")
    if prepare > 1.5 * step:
        said.append(
            f"Making the features of a batch takes {prepare:.2f} s, a step {step:.2f} s: the first pass over the corpus "
            "waits for its sound. Later ones do not, as far as the features fit into memory."
        )
    if disk > free_disk:
        said.append(
            f"It writes {disk / 2**30:.1f} GB, but only {free_disk / 2**30:.1f} GB are free where the job lies. "
            "Make room first."
        )
    return said
