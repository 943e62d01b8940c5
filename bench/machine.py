"""How fast this machine multiplies matrices: the yardstick of every other bench.

python -m bench.machine
"""

import os
import resource
import time
from dataclasses import dataclass

import torch
from torch.nn import functional

# (rows, inner, columns) of the products that a Base-size model spends its time on, for about 20 s of sound.
SIZES = [(1_000, 768, 2_304), (1_000, 768, 3_072), (1_000, 3_072, 768), (6_400, 1_536, 512)]


@dataclass(frozen=True)
class Rate:
    """Billions of operations in a second of the clock, and in a second of processor time."""

    wall: float
    processor: float


def processor_seconds() -> float:
    """Processor time of this process, all threads."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


def matrix_rate(dtype: torch.dtype, seconds: float = 1.0) -> Rate:
    """Measured over SIZES for about so many seconds, each size weighing by its operations."""
    pairs = [(torch.randn(rows, inner).to(dtype), torch.randn(columns, inner).to(dtype)) for rows, inner, columns in SIZES]
    with torch.inference_mode():
        for left, right in pairs:
            functional.linear(left, right)
        done, began, spent = 0.0, time.perf_counter(), processor_seconds()
        while time.perf_counter() - began < seconds:
            for (rows, inner, columns), (left, right) in zip(SIZES, pairs, strict=True):
                functional.linear(left, right)
                done += 2 * rows * inner * columns
        return Rate(done / (time.perf_counter() - began) / 1e9, done / (processor_seconds() - spent) / 1e9)


def describe() -> str:
    """Threads, and how busy the machine is with other things."""
    busy = f"load {os.getloadavg()[0]:.1f}"
    return f"{torch.get_num_threads()} threads of {os.cpu_count()} cores, {busy}, torch {torch.__version__}"


if __name__ == "__main__":
    print(describe())
    for dtype in (torch.float32, torch.bfloat16):
        rate = matrix_rate(dtype)
        name = str(dtype).removeprefix("torch.")
        print(f"{name:9} {rate.wall:7.0f} GFLOP/s, {rate.processor:7.0f} per second of processor time")
