"""Carrying out a run: what it needs, its seeds, the run itself, and the facts that made its result."""

import importlib.metadata
import platform
import random
import resource
import sys
import time
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import Refused
from engine.run import Context, Result, RunSpec
from engine.settings import HOUSE

# Packages that decide numbers; those that a run has loaded are named in its facts.
_NUMERIC = ("torch", "torchaudio", "numpy", "scipy", "scikit-learn", "transformers", "accelerate", "captum", "umap-learn")
_MODULES = {"scikit-learn": "sklearn", "umap-learn": "umap"}


def carry_out(spec: RunSpec, ctx: Context, *, attempt: int = 1) -> Result:
    """Run a spec. The result's facts say what was asked, with what it was computed, and what it cost."""
    reasons = spec.needs()
    if reasons:
        raise Refused(" ".join(reasons))
    seed(spec.seed)
    _forget_peak()
    began, clock, work = time.time(), time.perf_counter(), _cpu_seconds()
    result = spec.run(ctx)
    facts: dict[str, Any] = {
        "spec": spec.document,
        "key": spec.key,
        "seed": spec.seed,
        "started": began,
        "ended": time.time(),
        "seconds": round(time.perf_counter() - clock, 3),
        "cpu_seconds": round(_cpu_seconds() - work, 3),
        "peak_megabytes": _peak_megabytes(),
        "attempt": attempt,
        "versions": versions(),
        **_machine(ctx),
    }
    told = [str(event.values.get("text", "")) for event in ctx.log.read()[0] if event.kind == "note"]
    notes = list(dict.fromkeys([*result.facts.get("notes", []), *told]))  # a second attempt says things again
    return Result(result.table, result.figures, {**facts, **result.facts, "notes": notes})


def seed(number: int) -> None:
    """Seed every generator that this process has loaded."""
    random.seed(number)
    np.random.seed(number)
    torch = sys.modules.get("torch")  # a run that has not loaded it waits for others and draws nothing
    if torch is not None:
        torch.manual_seed(number)


@cache
def version() -> str:
    """The version of Auscult."""
    with (HOUSE / "pyproject.toml").open("rb") as handle:
        return str(tomllib.load(handle)["project"]["version"])


def versions() -> dict[str, str]:
    """The versions of everything loaded that decides numbers."""
    found = {"auscult": version(), "python": platform.python_version()}
    for name in _NUMERIC:
        if _MODULES.get(name, name) in sys.modules:
            found[name] = importlib.metadata.version(name)
    return found


def _machine(ctx: Context) -> dict[str, Any]:
    facts: dict[str, Any] = {"device": "cpu"}
    torch = sys.modules.get("torch")
    if torch is None:
        return facts
    facts["threads"] = torch.get_num_threads()
    if "device" in vars(ctx):  # a run that never asked has computed on the CPU
        facts["device"] = str(ctx.device)
    if facts["device"].startswith("cuda"):
        facts["gpu"] = torch.cuda.get_device_name(ctx.device)
        facts["gpu_peak_megabytes"] = round(torch.cuda.max_memory_allocated(ctx.device) / 2**20, 1)
    return facts


def _cpu_seconds() -> float:
    # With the children that have ended: decoding and synthesis run in some.
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


def _forget_peak() -> None:
    # The warm process runs many specs; Linux lets a process begin its memory peak anew.
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak_megabytes() -> float:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 1024, 1)
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 1024), 1)
