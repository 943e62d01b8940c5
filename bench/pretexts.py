"""The smoke recipe of each pretext: how its loss falls, and whether what it made beats its untrained twin.

    python -m bench.pretexts [--label phone|speaker] [--draws 5] NAME ...

Trains recipes/NAME_smoke.yaml as it stands, then reads phones (or speakers) from every layer of the
result, of its untrained twin and of filterbanks, on voices that none has learnt from. The margin counts where the intervals
over draws, of the best layer of each, do not touch.
"""

import argparse
import resource
import time
from dataclasses import dataclass

from app import workbench
from bench.machine import describe
from engine.job import JobStore
from engine.run import Context, Result

PROBES = {
    "phone": {"corpus": "spoken:sentences", "unit": "frame", "label": "phone"},
    "speaker": {"corpus": "spoken:digits", "unit": "utterance", "label": "speaker"},
}


def run(document: dict[str, object]) -> tuple[str, Result, float]:
    """Run a spec as a job that is not queued: its id, its result and the seconds it took."""
    job = JobStore().submit(workbench.resolve(document).document)
    begin = time.perf_counter()
    result = workbench.resolve(job.document).run(Context(job.folder, device="cpu"))
    result.save(job.result_file)
    return job.id, result, time.perf_counter() - begin


@dataclass(frozen=True)
class Best:
    """Accuracy of the layer that knows most, with its interval over draws."""

    value: float
    low: float
    high: float
    layer: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}, layer {self.layer})"


def best(result: Result, upstream: str) -> Best:
    """What the best layer of an upstream reaches."""
    lines = [line for line in result.table if line["upstream"] == upstream and line["measure"] == "accuracy"]
    line = max(lines, key=lambda line: float(line["value"] or 0))
    value, low, high = (round(float(line.get(name, line["value"]) or 0), 4) for name in ("value", "value_low", "value_high"))
    return Best(value, low, high, int(line["layer"] or 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--label", choices=PROBES, default="phone")
    parser.add_argument("--draws", type=int, default=5)
    asked = parser.parse_args()
    print(describe())
    recipes = {recipe.file.stem: recipe.document for recipe in workbench.recipes()}
    print("| pretext | loss | held out | trained | twin | fbank | beats its twin | train s | probe s |")
    print("|---" * 9 + "|")
    for name in asked.names:
        id, trained, seconds = run(dict(recipes[f"{name}_smoke"]))
        probe = {"run": "linear_probe", "upstreams": [f"job:{id}"], "baselines": ["fbank"], "control": False}
        _, probed, probing = run({**probe, "repeats": asked.draws, **PROBES[asked.label]})
        ours, twin, floor = (best(probed, upstream) for upstream in (f"job:{id}", f"random:job:{id}", "fbank"))
        facts = trained.facts
        cells = [
            name,
            f"{facts['first_loss']:.3f} to {facts['last_loss']:.3f}",
            f"{facts['last_valid_loss']:.3f}",
            str(ours),
            str(twin),
            f"{floor.value:.3f}",
            "yes" if ours.low > twin.high else "NO",
            f"{seconds:.0f}",
            f"{probing:.0f}",
        ]
        print(f"| {' | '.join(cells)} |", flush=True)
    print(f"most memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")


if __name__ == "__main__":
    main()
