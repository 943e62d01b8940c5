"""What the layers carry of real recordings: the order that the literature reports, or a sentence where it is another."""

from pathlib import Path

import pytest

from app import workbench
from engine.executors.inline import Inline
from engine.job import JobStore, State
from engine.run import Result


def run(**document: object) -> Result:
    job = JobStore().submit(workbench.resolve(document).document, executor="inline")
    Inline(workbench.resolve).start(job, [])
    assert job.status().state is State.FINISHED, job.status().reason
    return job.result()


def best(result: Result, upstream: str, measure: str) -> float:
    return max(
        float(line["value"] or 0) for line in result.table if line["upstream"] == upstream and line["measure"] == measure
    )


TRAINED, TWIN = "hubert-small", "random:hubert-small"


@pytest.mark.parametrize(
    ("folder", "label", "measure"),
    [("fsdd_digits", "label", "accuracy"), ("sax_notes", "pitch", "R2")],
)
def test_filterbanks_know_least_or_it_is_said(shared_data: Path, folder: str, label: str, measure: str) -> None:
    settings = {"corpus": f"manifest:{shared_data / folder}", "unit": "utterance", "label": label}
    result = run(run="linear_probe", **settings, layers=[0, 2, 4], control=False, repeats=1)
    fbank, twin, trained = (best(result, name, measure) for name in ("fbank-raw", TWIN, TRAINED))
    said = " ".join(result.facts["notes"])
    for name, value in (("fbank-raw", fbank), (TWIN, twin)):
        assert (trained > value) != (f"No layer of {TRAINED} does better than {name}" in said)
