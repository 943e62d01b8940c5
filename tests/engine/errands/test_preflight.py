"""The preflight: what a training needs is measured, what stands in its way is said, and its first batch can be heard."""

import json
from pathlib import Path

import learning
import pandas
import pytest
import soundfile

from app import workbench
from engine.errands import preflight
from engine.errands.preflight import Preflight
from engine.errors import Refused
from engine.job import JobStore
from engine.nets.masking import spans
from engine.run import Context, Result

TINY = {**learning.TINY, "steps": 1000}


def attempt(**changes: object) -> tuple[Path, Result]:
    spec = workbench.resolve({"run": "preflight", "training": json.dumps({**TINY, **changes})})
    job = JobStore().submit(spec.document)
    return job.folder, spec.run(Context(job.folder, device="cpu"))


def test_it_tells_what_the_training_needs_and_plays_what_it_hears(workspace: Path) -> None:
    folder, result = attempt()
    told = {str(line["what"]): float(line["value"] or 0) for line in result.table}
    assert told["the whole training"] == pytest.approx(told["one step"] * 1000 / 3600, rel=0.5)
    assert 0 < told["memory of the largest batch"] < told["memory that is free"]
    assert not (folder / "tried").exists() and not (folder / "checkpoints").exists()
    events = [json.loads(line)["kind"] for line in (folder / "events.jsonl").read_text().splitlines()]
    assert "progress" in events and "metric" not in events  # it has no losses of its own

    sounds = pandas.read_parquet(folder / "artifacts" / "sounds.parquet")
    assert len(sounds) == preflight.SHOWN and (sounds["share_hidden"] > 0.05).all()
    # The silent samples are those under the frames that the first step will hide.
    begin = workbench.resolve(TINY).start(Context(folder, device="cpu"))
    batch = begin.learnt.batch(begin.order(0)[:1], 0, 0, Context(folder, device="cpu").device)
    hidden = spans(len(batch.part()[0]), 0.15, 7, batch.generators()[0])
    heard, _ = soundfile.read(folder / "artifacts" / sounds["file"][0])
    whole = begin.learnt.sound.wave(begin.order(0)[0])
    frames = min(len(hidden) * 320, len(whole))
    silent = hidden.repeat_interleave(320)[:frames].numpy()
    assert (heard[:frames][silent] == 0).all()
    assert abs(heard[:frames][~silent] - whole[:frames].numpy()[~silent]).max() < 1e-4


def test_a_batch_that_does_not_fit_is_said_with_the_cheapest_change(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "_try", lambda spec, begin, ctx: (2**30, 9 * 2**30, 0.1, 1000))
    monkeypatch.setattr(preflight, "_prepare", lambda spec, begin, ctx: 0.0)
    monkeypatch.setattr(preflight, "_free_memory", lambda device: 4 * 2**30)
    _, result = attempt(batch_seconds=12)
    assert result.facts["advice"] == [
        "Its largest batch takes 9.0 GB, but only 4.0 GB are free. With parts=4 it would fit and learn the same: each batch "
        "is computed in 4 parts."
    ]
    monkeypatch.setattr(preflight, "_free_memory", lambda device: 2**30)
    assert "Even one clip at a time would not fit" in attempt(batch_seconds=12)[1].facts["advice"][0]


def test_features_that_take_longer_than_a_step_are_said(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_try", lambda spec, begin, ctx: (2**20, 2**21, 0.01, 1000))
    monkeypatch.setattr(preflight, "_prepare", lambda spec, begin, ctx: 0.5)
    _, result = attempt()
    assert "takes 0.50 s, a step 0.01 s" in result.facts["advice"][0]
    told = {str(line["what"]): float(line["value"] or 0) for line in result.table}
    epoch = preflight._batches(workbench.resolve(TINY).start(Context(workspace, device="cpu")), 1000)
    assert told["the whole training"] == pytest.approx((1000 * 0.01 + epoch * 0.49) / 3600)


def test_settings_that_are_no_training_are_refused_in_words() -> None:
    assert Preflight(training="run: linear_probe").needs()[0].startswith("There is no")
    assert "heads" in Preflight(training=json.dumps({**TINY, "heads": 5})).needs()[0]
    assert "name no run" in Preflight(training="mockingjay").needs()[0]
    assert "are no YAML" in Preflight(training="run: [").needs()[0]
    with pytest.raises(Refused, match="share"):
        Preflight(training=json.dumps({**TINY, "share": 7})).spec()
