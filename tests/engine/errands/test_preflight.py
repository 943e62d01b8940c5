"""The preflight: what a training needs is measured, what stands in its way is said, and its first batch can be heard."""

import json
from collections.abc import Callable
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
from engine.training.plan import Plan

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
    network = workbench.resolve(TINY).network()
    assert told["weights"] == sum(weight.numel() for weight in network.parameters())
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


GB = 2**30


@pytest.mark.parametrize(
    ("static", "peak", "free", "clips", "said"),
    [
        (1, 9, 4, 20, "takes 9.0 GB, but only 4.0 GB are free. With parts=4 it would fit and learn the same: each batch is"),
        # What is there before the batch does not get smaller by parts: 8 GB into 1.6, not 9 into 2.6.
        (1, 9, 2.6 / 0.9, 20, "With parts=8 it would fit"),
        (1, 9, 4, 3, "Even one clip at a time would not fit"),  # four parts of three clips there are not
        (5, 9, 4, 20, "Even one clip at a time would not fit"),
        (1, 3.8, 4, 20, "With parts=2 it would fit"),  # a tenth stays free
        (1, 3.5, 4, 20, ""),
    ],
)
def test_a_batch_that_does_not_fit_is_said_with_the_cheapest_change(
    static: float, peak: float, free: float, clips: int, said: str
) -> None:
    spec = Preflight(training=json.dumps(TINY)).spec()
    advice = preflight._advice(spec, int(static * GB), int(peak * GB), int(free * GB), 0.0, 0.1, 1.0, 2.0, clips)
    assert (len(advice) == 1 and said in advice[0]) if said else not advice


def test_a_disk_that_is_too_small_is_said() -> None:
    spec = Preflight(training=json.dumps(TINY)).spec()
    (said,) = preflight._advice(spec, 0, GB, 4 * GB, 0.0, 0.1, 2.5 * GB, 1.5 * GB, 20)
    assert said == "It writes 2.5 GB, but only 1.5 GB are free where the job lies. Make room first."


def test_the_largest_batch_comes_first_and_the_steps_after_it_are_timed(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest is the one with most sound, padding counted; the clock is that of the steps between."""
    spec = workbench.resolve(TINY)
    begin = spec.start(Context(workspace, device="cpu"))
    seconds, seen = begin.learnt.sound.seconds, []
    clock = iter([100.0, 110.0, 110.5, 111.5, 113.0, 199.0])
    monkeypatch.setattr(preflight.time, "perf_counter", lambda: next(clock))

    def fit(module: object, order: Callable[[int], list[int]], load: object, plan: Plan, ctx: Context) -> None:
        for step in range(plan.steps):
            ctx.progress(step, plan.steps, "training")
            seen.append(order(step))
        (ctx.folder / "state.pt").write_bytes(b"x" * 1234)

    monkeypatch.setattr(preflight, "fit", fit)
    static, peak, step, size = preflight._try(spec, begin, Context(workspace, device="cpu"))
    padded = lambda batch: max(seconds[clip] for clip in batch) * len(batch)  # noqa: E731
    batches = preflight._batches(begin, 1000)
    assert sorted(clip for step in range(batches) for clip in begin.order(step)) == list(range(len(seconds)))
    assert padded(seen[0]) == max(padded(begin.order(step)) for step in range(batches)) and seen[1:] == [
        begin.order(step) for step in range(preflight.STEPS)
    ]
    assert step == pytest.approx((113.0 - 110.0) / 3) and size == 1234 and 0 < static <= peak


@pytest.mark.parametrize(("seconds", "said"), [(90, "90 seconds"), (300, "5 minutes"), (36_000_000, "10,000 hours")])
def test_times_are_said_in_units_that_fit(seconds: float, said: str) -> None:
    assert preflight._span(seconds) == said


def test_features_that_take_longer_than_a_step_are_said(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_try", lambda spec, begin, ctx: (2**20, 2**21, 0.01, 1000))
    monkeypatch.setattr(preflight, "_prepare", lambda spec, begin, ctx: 0.5)
    _, result = attempt()
    assert "takes 0.50 s, a step 0.01 s" in result.facts["advice"][0]
    told = {str(line["what"]): float(line["value"] or 0) for line in result.table}
    epoch = preflight._batches(workbench.resolve(TINY).start(Context(workspace, device="cpu")), 1000)
    assert told["the whole training"] == pytest.approx((1000 * 0.01 + epoch * 0.49) / 3600)


def test_time_and_disk_are_those_of_every_round_and_snapshot(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_try", lambda spec, begin, ctx: (2**20, 2**21, 0.5, 10_000_000))
    monkeypatch.setattr(preflight, "_prepare", lambda spec, begin, ctx: 0.0)

    def told(**changes: object) -> dict[str, float]:
        return {str(line["what"]): float(line["value"] or 0) for line in attempt(**changes)[1].table}

    plain = told()
    weights = plain["weights"] * 4
    # The last two checkpoints, the last and the best upstream; with snapshots also the steps 0, 1, 2, 4 ... 512, 1000.
    assert plain["disk"] * 2**30 == pytest.approx(20_000_000 + 2 * weights)
    assert told(snapshots=True)["disk"] * 2**30 == pytest.approx(20_000_000 + (2 + 12) * weights)
    assert plain["the whole training"] == pytest.approx(1000 * 0.5 / 3600)
    rounds = {"run": "hubert", "front": "features", "clusters": 8, "iterations": 2, "first_steps": 200, "layer": 1}
    twice = told(**rounds)
    assert twice["the whole training"] == pytest.approx((200 + 1000) * 0.5 / 3600)
    assert twice["disk"] * 2**30 == pytest.approx(2 * 20_000_000 + 2 * twice["weights"] * 4)


def test_settings_that_are_no_training_are_refused_in_words() -> None:
    assert Preflight(training="run: linear_probe").needs()[0].startswith("There is no")
    assert "heads" in Preflight(training=json.dumps({**TINY, "heads": 5})).needs()[0]
    assert "name no run" in Preflight(training="mockingjay").needs()[0]
    assert "are no YAML" in Preflight(training="run: [").needs()[0]
    with pytest.raises(Refused, match="share"):
        Preflight(training=json.dumps({**TINY, "share": 7})).spec()
