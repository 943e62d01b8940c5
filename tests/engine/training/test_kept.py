"""What a training keeps besides its last weights: their running mean, the best ones, and those of steps on the way."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from app import workbench
from engine import upstream
from engine.errors import Interrupted, Unknown
from engine.job import Job, JobStore
from engine.run import Context, Result
from engine.training.average import Average
from engine.training.fit import Fit, fit
from engine.training.plan import Loss, Plan, Trainee
from tests.engine.training.test_fit import trace
from tests.engine.training.test_resume import TINY, notes


class Walk(Trainee):
    """Its one weight moves by the rate towards what it is given, and remembers where it was."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(()))
        self.fixed = nn.Parameter(torch.ones(()), requires_grad=False)
        self.been: list[float] = []

    def forward(self, target: Tensor) -> Loss:
        return Loss((self.place - target).abs(), 1)

    def stepped(self) -> None:
        self.been.append(self.place.item())


def walk(folder: Path, held: list[float], *, stop: int = 0, **changes: object) -> tuple[Fit, Walk, list[float]]:
    """Ten steps to the right; what it measured at each validation, and what weight it had then.

    `stop` is the validation in whose midst it is interrupted.
    """
    folder.mkdir(exist_ok=True)
    module, seen, told = Walk(), [], iter(held)

    def validate() -> dict[str, float]:
        seen.append(module.place.item())
        if len(seen) == stop:
            raise Interrupted("in the midst of it")
        return {"valid_loss": next(told)}

    plan = {"steps": 10, "rate": 0.1, "schedule": "steady", "warm_up": 0.0, "validate_every": 1, "decay": 0.0, **changes}
    fitted = fit(
        module,
        lambda step: [step],
        lambda clips, step: torch.tensor(100.0 + step % 3),
        Plan(**plan),  # type: ignore[arg-type]
        Context(folder, device="cpu"),
        validate=validate,
        watch="valid_loss",
    )
    return fitted, module, seen


def test_the_running_mean_follows_its_formula_and_is_what_is_measured_and_kept(tmp_path: Path) -> None:
    fitted, module, seen = walk(tmp_path, [5, 4, 3, 2, 1, 2, 3, 4, 5, 6], average=0.75)
    mean, means = 0.0, []
    for step, place in enumerate(module.been, 1):
        memory = min(0.75, (step - 1) / step)
        mean = memory * mean + (1 - memory) * place
        means.append(mean)
    assert means[2] == pytest.approx(sum(module.been[:3]) / 3)  # at first it is the plain mean
    assert seen == pytest.approx(means, rel=1e-6)
    assert module.place.item() == pytest.approx(means[-1], rel=1e-6) and module.place.item() < module.been[-1]
    assert fitted.best_weights is not None and fitted.best_step == 5
    assert fitted.best_weights["place"].item() == pytest.approx(means[4], rel=1e-6)


def test_the_weights_that_learn_are_not_touched_by_their_mean(tmp_path: Path) -> None:
    _, with_mean, _ = walk(tmp_path / "mean", list(range(10)), average=0.9)
    _, without, _ = walk(tmp_path / "plain", list(range(10)))
    assert with_mean.been == without.been and without.place.item() == without.been[-1]


def test_what_does_not_learn_has_no_mean() -> None:
    assert list(Average(Walk(), 0.9).weights) == ["place"]


def test_the_best_weights_are_found_again_in_a_finished_training(tmp_path: Path) -> None:
    fitted, module, _ = walk(tmp_path, [5, 4, 1, 2, 3, 1, 3, 4, 5, 6])
    again, _, seen = walk(tmp_path, [])
    assert seen == [] and again.history == fitted.history
    for found in (fitted, again):
        assert found.best == 1 and found.best_step == 3  # the first of two that are alike
        assert found.best_weights is not None and found.best_weights["place"].item() == module.been[2]


def test_it_ends_when_patience_is_over_also_for_one_that_is_resumed(tmp_path: Path) -> None:
    fitted, module, _ = walk(tmp_path, [5, 4, 3, 4, 3, 5, 6, 7, 8, 9], patience=3)
    assert len(module.been) == 6 and fitted.ended and fitted.best_step == 3
    assert any("ended at step 6 of 10. The best was step 3." in note for note in notes(tmp_path))
    again, module, _ = walk(tmp_path, [], patience=3)
    assert module.been == [] and again.best_step == 3 and [told["step"] for told in again.history] == [1, 2, 3, 4, 5, 6]
    never, module, _ = walk(tmp_path / "never", [5, 4, 3, 4, 3, 5, 6, 7, 8, 9])
    assert len(module.been) == 10 and not never.ended


def test_stopped_in_the_midst_of_a_validation_it_does_that_one_again(tmp_path: Path) -> None:
    held = [5.0, 4, 3, 4, 3, 5, 6, 7, 8, 9]
    walk(tmp_path / "whole", held, patience=5, average=0.5)
    with pytest.raises(Interrupted):
        walk(tmp_path / "torn", held, patience=5, average=0.5, stop=3)
    fitted, _, _ = walk(tmp_path / "torn", held[2:], patience=5, average=0.5)
    assert trace(tmp_path / "torn") == trace(tmp_path / "whole") and len(trace(tmp_path / "whole")) == 8
    assert [told["step"] for told in fitted.history] == list(range(1, 9)) and fitted.best_step == 3


def finished(**changes: object) -> tuple[Job, Result]:
    job = JobStore().submit(workbench.resolve({**TINY, **changes}).document)
    result = workbench.resolve(job.document).run(Context(job.folder, device="cpu"))
    result.save(job.result_file)
    return job, result


def test_the_upstream_of_each_step_and_the_best_are_found_by_name(workspace: Path) -> None:
    job, result = finished(steps=12, average=0.0)
    names = [f"job:{job.id}@{which}" for which in ("0", "1", "2", "4", "8", "12", "best")]
    found = {name: upstream.find(name) for name in names}
    assert len({card.revision for card in found.values()}) == 6  # the best is that of one of the steps, here the last
    last = upstream.find(f"job:{job.id}")
    assert found[names[5]].revision == last.revision == result.facts["revision"]
    assert result.facts["best_step"] == 12 and found[names[6]].revision == last.revision
    assert "for 8 steps" in found[names[4]].about
    wave = torch.randn(8000, generator=torch.Generator().manual_seed(0)) * 0.1
    begun, after = (upstream.load(names[number]).encode([wave]).states[-1] for number in (0, 5))
    assert not torch.equal(begun, after)
    assert torch.equal(after, upstream.load(last.name).encode([wave]).states[-1])
    # What it was before the first step is what a spec of that seed begins with.
    fresh = upstream.find(names[0])
    assert sum(weight.numel() for weight in fresh.open(fresh).parameters()) == result.facts["weights"]
    with pytest.raises(Unknown, match="no snapshot of job .* called '5'. There is: 0, 1, 12, 2, 4, 8, best"):
        upstream.find(f"job:{job.id}@5")
    assert not {card.name for card in upstream.cards()} & set(names)  # they do not crowd the list
    assert [figure.y for figure in result.figures] == ["loss", "gradient", "rate"]
    assert result.facts["pace"]["steps_per_second"] > 0 and result.facts["pace"]["sound_per_second"] > 1


def test_snapshots_can_be_used_while_the_job_still_runs(workspace: Path) -> None:
    job = JobStore().submit(workbench.resolve(TINY).document)

    def stop() -> None:
        if len([event for event in job.events.read()[0] if event.kind == "metric"]) >= 5:
            raise Interrupted("enough")

    with pytest.raises(Interrupted):
        workbench.resolve(job.document).run(Context(job.folder, device="cpu", stop=stop))
    assert upstream.load(f"job:{job.id[:20]}@4").card.layers == 2
    with pytest.raises(Unknown, match="called '8'. There is: 0, 1, 2, 4"):
        upstream.find(f"job:{job.id}@8")
