"""HuBERT: labels stand where their frames are, its loss is that of the paper, and its rounds go on exactly after a kill."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from app import workbench
from engine import corpus, upstream
from engine.errors import Refused
from engine.job import Job, JobStore
from engine.nets.masking import runs
from engine.objectives.cluster_labels import ClusterLabels, quality
from engine.objectives.clustered import Guessing
from engine.pretext import Batch, Before, Sound
from engine.pretexts.hubert import Hubert
from engine.run import Context

TINY = {
    "corpus": "spoken:digits?voices=4",
    "front": "features",
    "targets": "mfcc",
    "iterations": 2,
    "steps": 12,
    "first_steps": 12,
    "clusters": 12,
    "layer": 1,
    "later_clusters": 10,
    "sampled": 1500,
    "batch_seconds": 8,
    "parts": 1,
    "rate": 0.005,
    "blocks": 2,
    "width": 32,
    "heads": 2,
    "inner": 64,
    "dropout": 0.0,
    "layer_drop": 0.0,
    "checkpoint_every": 5,
    "validate_every": 100,
}


def spec(**changes: object) -> Hubert:
    found = workbench.resolve({"run": "hubert", **TINY, **changes})
    assert isinstance(found, Hubert)
    return found


def begin() -> Job:
    return JobStore().submit(spec().document)


def train(job: Job, stop: object = None) -> None:
    context = Context(job.folder, device="cpu", stop=stop)  # type: ignore[arg-type]
    workbench.resolve(job.document).run(context).save(job.result_file)


def told(job: Job) -> list[tuple[int, str]]:
    """Step and loss, in the order in which they were written; one that was done again counts once."""
    lines = [event.values for event in job.events.read()[0] if event.kind == "metric" and "loss" in event.values]
    return list(dict.fromkeys((line["step"], float(line["loss"]).hex()) for line in lines))


def objective(chosen: Hubert, folder: Path) -> Guessing:
    torch.manual_seed(0)
    network = chosen.network()
    sound = Sound(list(corpus.find(chosen.corpus).utterances())[:12], 0.1)
    made = chosen.objective(network, Before(sound, Context(folder, device="cpu"), 0, None))
    assert isinstance(made, Guessing)
    return made


def test_it_learns_and_a_kill_in_the_second_round_changes_nothing(workspace: Path) -> None:
    whole, killed = begin(), begin()
    train(whole)
    steps = [step for step, _ in told(whole)]
    assert steps == [*range(1, 13), *range(1, 13)] or steps == list(range(1, 25))

    def stop() -> None:
        if len(told(killed)) >= 19:
            raise MemoryError("as by a kill: nothing is saved on the way out")

    with pytest.raises(MemoryError):
        train(killed, stop)
    marks = {file.name: file.stat().st_mtime_ns for file in (killed.folder / "artifacts" / "clusters").iterdir()}
    assert len(marks) == 2
    first_round = (killed.checkpoints / "round-1" / "step-000000012.pt").stat().st_mtime_ns
    train(killed)
    assert told(killed) == told(whole)
    # Neither the first round nor its clusters were made again, and the sentence about them is said once.
    assert (killed.checkpoints / "round-1" / "step-000000012.pt").stat().st_mtime_ns == first_round
    assert marks == {file.name: file.stat().st_mtime_ns for file in (killed.folder / "artifacts" / "clusters").iterdir()}
    notes = [event.values["text"] for event in killed.events.read()[0] if event.kind == "note"]
    assert sum(note.startswith("Round 1 learns from 12 clusters of layer 0 of mfcc") for note in notes) == 1
    assert sum(note.startswith("Round 2 learns from 10 clusters of layer 1 of round 1") for note in notes) == 1

    points = [event.values for event in killed.events.read()[0] if event.kind == "metric" and "pnmi" in event.values]
    assert [point["step"] for point in points] == [0, 12]

    facts = killed.result().facts
    assert [each["clusters"] for each in facts["clusters"]] == [12, 10]
    assert all(0.2 < each["pnmi"] < 1 and 0.3 < each["phone_purity"] <= 1 for each in facts["clusters"])
    assert facts["last_loss"] < 0.95 * facts["first_loss"]
    first, second = upstream.find(f"job:{whole.id}"), upstream.find(f"job:{killed.id}")
    assert first.revision == second.revision and first.family == "HuBERT" and first.hop == 320


@torch.no_grad()
@pytest.mark.parametrize("front", ["features", "waveform"])
def test_the_loss_is_the_cross_entropy_of_hidden_frames_and_company_changes_nothing(workspace: Path, front: str) -> None:
    chosen = spec(front=front, channels=16)
    made = objective(chosen, workspace).eval()
    waves = [torch.randn(n, generator=torch.Generator().manual_seed(n)) * 0.1 for n in (9000, 14000)]
    clips = [made.prepare(wave) for wave in waves]
    batch = Batch(clips, [0, 1], [3, 4])
    loss = made(batch)
    by_hand, count = 0.0, 0
    for wave, clip, draw in zip(waves, clips, batch.generators(), strict=True):
        local = made.network.local([wave])[0]
        labels = clip[1]
        assert len(labels) == len(local) == made.network.frames(len(wave))
        hidden = runs(len(local), 0.08, 10, draw)
        x = made.network.projected(local)
        x[hidden] = made.mask
        guess = made.guess(made.network.contextual(x, [len(x)])[-1])
        cosines = functional.cosine_similarity(guess[:, None], made.vectors[None], dim=2)
        by_hand += float(functional.cross_entropy(cosines[hidden] / 0.1, labels[hidden], reduction="sum"))
        count += int(hidden.sum())
        if front == "waveform":
            by_hand += 10 * int(hidden.sum()) * float(local.square().mean())
    assert float(loss.total) == pytest.approx(by_hand, rel=1e-4) and loss.count == count

    alone = [made(Batch([clip], [number], [seed])) for clip, number, seed in zip(clips, (0, 1), (3, 4), strict=True)]
    assert float(sum(part.total for part in alone)) == pytest.approx(float(loss.total), rel=1e-5)
    assert sum(part.count for part in alone) == loss.count


@torch.no_grad()
def test_frames_that_are_seen_count_when_they_are_given_weight(workspace: Path) -> None:
    made = objective(spec(seen_weight=0.5), workspace).eval()
    clip = made.prepare(torch.randn(16000, generator=torch.Generator().manual_seed(1)) * 0.1)
    loss, states, hidden = made.guessed(Batch([clip], [0], [5]))
    costs = functional.cross_entropy(made.scores(states[-1]), clip[1], reduction="none")
    assert float(loss.total) == pytest.approx(float(costs[hidden].sum() + 0.5 * costs[~hidden].sum()), rel=1e-5)
    assert loss.count == len(clip[1])


def test_another_process_waits_for_the_clusters_of_the_first(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = objective(spec(), workspace)
    asked: list[int] = []

    def stop() -> None:
        asked.append(1)
        if len(asked) == 3:
            kept.rename(file)

    file = workspace / "artifacts" / "clusters" / "round-1.safetensors"
    kept = file.rename(file.with_suffix(".kept"))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("engine.objectives.cluster_labels.POLL", 0.0)
    beside = Before(Sound(list(corpus.find(spec().corpus).utterances())[:1], 0.1), Context(workspace, stop=stop), 0, None)
    made = spec().objective(spec().network(), beside)
    assert isinstance(made, Guessing) and len(asked) == 3
    assert torch.equal(made.labels.centres, first.labels.centres) and made.quality == first.quality


def test_labels_of_another_rate_stand_where_the_frames_begin() -> None:
    """Cepstra come every 10 ms, frames every 20 ms or 40 ms: frame i takes label 2i or 4i, the last one twice if need be."""
    wave = torch.randn(16000, generator=torch.Generator().manual_seed(2)) * 0.1
    source = upstream.load("mfcc")
    cepstra = source.encode([wave]).clip(0)[0]
    labels = ClusterLabels(source, -1, cepstra[::1])  # every frame is its own cluster
    assert labels(wave, 49, 0.02).tolist() == [2 * i for i in range(49)]
    assert labels(wave, 24, 0.04).tolist() == [4 * i for i in range(24)]
    assert labels(wave, 98, 0.01).tolist() == list(range(98))
    assert labels(wave, 51, 0.02).tolist()[-2:] == [97, 97]  # 98 frames of cepstra: 0 ... 97


def test_a_clip_that_comes_again_is_not_heard_again(monkeypatch: pytest.MonkeyPatch) -> None:
    wave = torch.randn(16000, generator=torch.Generator().manual_seed(2)) * 0.1
    labels = ClusterLabels(upstream.load("mfcc"), -1, torch.randn(8, 39, generator=torch.Generator().manual_seed(3)))
    found = labels(wave, 49, 0.02)
    monkeypatch.setattr(labels, "features", None)
    assert torch.equal(labels(wave.clone(), 49, 0.02), found)
    with pytest.raises(TypeError):
        labels(wave * 2, 49, 0.02)


def test_the_quality_of_clusters_by_hand() -> None:
    found = torch.tensor([0, 0, 1, 1, 2, 2, 3])
    told = quality(found, ["a", "b", "a", "a", "b", "", "c"])
    # Of six frames with a phone: cluster 0 has a and b, cluster 1 a twice, cluster 2 b, cluster 3 c.
    assert told["phone_purity"] == pytest.approx(5 / 6)
    assert told["cluster_purity"] == pytest.approx(4 / 6)  # a is twice in its usual cluster, b and c once
    share = torch.tensor([3, 2, 1]) / 6
    unsure = float(-(share * share.log()).sum())
    left = 2 / 6 * float(torch.tensor(2.0).log())  # what is not known in cluster 0
    assert told["pnmi"] == pytest.approx(1 - left / unsure)
    assert quality(found, [""] * 7) == {}


def test_guessing_one_cluster_is_said(workspace: Path) -> None:
    made = objective(spec(), workspace)
    ill = {"guess_perplexity": 1.1, "label_perplexity": 9.0}
    made.begin(10, 1000)
    assert made.unwell(ill) == ""
    made.begin(400, 1000)
    assert "always the same of 12 labels" in made.unwell(ill)
    assert made.unwell({**ill, "guess_perplexity": 6.0}) == ""


def test_settings_that_do_not_fit_are_said(workspace: Path) -> None:
    with pytest.raises(Refused, match="layer 3 is to be clustered, but the network has 2 blocks"):
        spec(layer=3)
    assert spec(layer=3, iterations=1).rounds == 1
    assert "mfcc has no layer 4" in spec(targets_layer=4).needs()[0]
    with pytest.raises(Refused, match="cannot be parted into 5000 clusters"):
        objective(spec(clusters=5000), workspace)
    assert Hubert().needs() == [] and Hubert().round_plan(0).steps == 250_000 and Hubert().round_plan(1).steps == 400_000
