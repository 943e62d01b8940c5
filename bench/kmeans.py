"""k-means of 100,000 rows of 768 dimensions into 500 clusters: ours, faiss and scikit-learn's MiniBatchKMeans, in turn.

    python -m bench.kmeans [--rows 100000] [--clusters 500] [--steps 25] [--rounds 2]

The rows are drawn as speech rows tend to lie: crowds with unequal shares, few directions with most of the variance. All get
the same array, in the same process. Ours with exactly the steps of faiss; with the rule that ends it by itself; and with
bfloat16 distances, three steps on a fifth of the rows, beside float32 on the same ones.
faiss: pip install --target FOLDER --no-deps faiss-cpu, that folder in PYTHONPATH.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from bench.machine import describe, matrix_rate, processor_seconds
from engine import clusters

DIMS = 768


def rows(count: int) -> Tensor:
    """Three times as many crowds as clusters are asked for, of unequal size, in a space that narrows."""
    generator = torch.Generator().manual_seed(0)
    crowds = torch.randn(1500, DIMS, generator=generator)
    which = torch.multinomial(1 / (torch.arange(1500) + 20.0), count, replacement=True, generator=generator)
    x = 1.2 * crowds[which] + torch.randn(count, DIMS, generator=generator)
    return 10 * x / torch.arange(1, DIMS + 1).sqrt() + 3 * torch.randn(DIMS, generator=generator)


def ours(x: Tensor, count: int, steps: int, **options: object) -> Tensor:
    return clusters.kmeans(x, count, seed=1, steps=steps, **options)  # type: ignore[arg-type]


def faiss_way(x: Tensor, count: int, steps: int) -> Tensor:
    import faiss

    peer = faiss.Kmeans(DIMS, count, niter=steps, seed=1, max_points_per_centroid=len(x))  # so that it takes every row
    peer.train(x.numpy())
    return torch.from_numpy(peer.centroids)


def mini_batch(x: Tensor, count: int) -> Tensor:
    """With the settings of Pasad et al. 2021's code."""
    from sklearn.cluster import MiniBatchKMeans

    peer = MiniBatchKMeans(count, batch_size=1500, max_iter=500, n_init=3, random_state=1).fit(x.numpy())
    return torch.from_numpy(np.asarray(peer.cluster_centers_, dtype=np.float32))


def timed(name: str, x: Tensor, run: Callable[[], Tensor], operations: float = 0.0) -> None:
    """One line: seconds, mean squared distance, and the share of the matrix rate measured around it."""
    before = matrix_rate(torch.float32)
    began, spent = time.perf_counter(), processor_seconds()
    centres = run()
    wall, processor = time.perf_counter() - began, processor_seconds() - spent
    rate = (before.processor + matrix_rate(torch.float32).processor) / 2
    share = f"{operations / processor / 1e9 / rate:5.0%}" if operations else "    -"
    print(f"{name:38} {wall:7.1f} {processor:7.1f} {clusters.inertia(x, centres):11.2f} {share}   {describe()}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("rows", 100_000), ("clusters", 500), ("steps", 25), ("rounds", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    x, count, steps = rows(given.rows), given.clusters, given.steps
    part = x[: max(count, len(x) // 5)]
    work = 2.0 * len(x) * count * DIMS * steps
    print(f"{len(x):,} rows, {count} clusters, {steps} steps")
    print(f"{'way':38} {'wall s':>7} {'cpu s':>7} {'inertia':>11} share of the matrix rate")
    for _ in range(given.rounds):
        timed(f"ours, {steps} steps", x, lambda: ours(x, count, steps, tolerance=0.0), work)
        if importlib.util.find_spec("faiss"):
            timed(f"faiss, {steps} steps", x, lambda: faiss_way(x, count, steps), work)
        else:
            print("faiss is not installed; see the docstring")
        timed("ours, ending by itself", x, lambda: ours(x, count, 100))
        timed("MiniBatchKMeans", x, lambda: mini_batch(x, count))
    for kind in (torch.float32, torch.bfloat16):
        name = str(kind).removeprefix("torch.")
        timed(f"ours, {name}, a fifth, 3 steps", part, lambda: ours(part, count, 3, tolerance=0.0, distances=kind))  # noqa: B023
    timed("seeds alone", x, lambda: ours(x, count, 0))
    import resource

    print(f"peak memory of all {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")


if __name__ == "__main__":
    main()
