"""vq-wav2vec learns without losing its codebooks; how its quantizers learn, by hand."""

import math
from pathlib import Path

import pytest
import torch
from learning import batch, learnt

from app import workbench
from engine import upstream
from engine.errors import Refused
from engine.nets.codebooks import Gumbel, KMeans
from engine.pretext import Before
from engine.pretexts.vq_wav2vec import InWords, VqWav2vec

TINY = {"channels": 16, "entries": 20, "ahead": 3, "window": 0}


def made(**settings: object) -> InWords:
    torch.manual_seed(0)
    spec = VqWav2vec(**{**TINY, **settings})  # type: ignore[arg-type]
    objective = InWords(spec.network(), spec)
    return objective


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("quantizer", ["gumbel", "kmeans"])
def test_it_learns_and_keeps_its_codebooks(quantizer: str, workspace: Path) -> None:
    settings = {"parts": 1, "warm_up": 0.2, "steps": 10, "rate": 0.0005, "validate_every": 100, "quantizer": quantizer}
    job, result = learnt("vq_wav2vec", **{**TINY, **settings})
    assert float(str(result.facts["last_valid_loss"])) < 0.93 * float(str(result.facts["first_loss"]))
    last = [line for line in result.table if line["split"] == "train"][-1]
    assert float(str(last["perplexity"])) > 3
    model = upstream.load(f"job:{job.id}")
    codes = model.tap([0.1 * noise(8000)], "codes")["codes"][0]
    assert codes.shape == (model.frames(8000), 2) and int(codes.min()) >= 0 and int(codes.max()) < 20
    assert model.card.layers == 13  # the quantizer and twelve layers
    assert upstream.find(f"job:{job.id}").differentiable == model.card.differentiable == (quantizer == "kmeans")


def test_the_draw_cools_in_a_line_until_seven_tenths() -> None:
    objective = made()
    found = []
    for step in (0, 35, 70, 99):
        objective.begin(step, 100)
        found.append(objective.temperature)
    assert found == pytest.approx([2.0, 1.25, 0.5, 0.5])


@torch.no_grad()
def test_what_is_drawn_is_an_entry_and_what_is_not_drawn_is_what_the_upstream_takes() -> None:
    torch.manual_seed(0)
    quantizer = Gumbel(8, 2, 5, True, depth=2, activation="relu")
    x = noise(30, 8)
    learning = quantizer.train().learn(x, 2.0)
    torch.testing.assert_close(learning.vectors, quantizer.chosen(learning.codes))
    assert not torch.equal(learning.codes, quantizer.codes(x))
    still = quantizer.eval().learn(x, 2.0)
    assert torch.equal(still.codes, quantizer.codes(x))
    torch.testing.assert_close(still.vectors, quantizer(x))


def test_entries_begin_among_frames() -> None:
    spec = VqWav2vec(**TINY, quantizer="kmeans")  # type: ignore[arg-type]
    torch.manual_seed(0)
    network = spec.network()
    waves = [0.1 * noise(4000, seed=number) for number in range(30)]

    class Waves(list[torch.Tensor]):
        def wave(self, number: int) -> torch.Tensor:
            return self[number]

    spec.objective(network, Before(Waves(waves), None, 0, None))  # type: ignore[arg-type]
    quantizer = network.quantizer
    assert isinstance(quantizer, KMeans)
    near = torch.cat([quantizer.near(network.framed(wave)) for wave in waves]).view(-1, 2, 8).flatten(0, 1)
    entries = quantizer.vectors[:, 0]
    assert entries.shape == (20, 8) and len(torch.unique(entries, dim=0)) == 20
    apart = torch.cdist(near, entries).min(1).values.square().mean()
    assert apart < 0.5 * near.var(0).sum()


def test_entries_and_frames_are_drawn_to_each_other() -> None:
    torch.manual_seed(0)
    quantizer = KMeans(8, 2, 5, False)
    x = noise(30, 8).requires_grad_()
    words, apart = quantizer.learn(x, 0.25)
    near = quantizer.near(x)
    taken = quantizer.chosen(words.codes)
    torch.testing.assert_close(words.vectors, quantizer(x))
    assert apart.item() == pytest.approx(1.25 * (taken - near).square().mean().item(), rel=1e-5)
    entries, frames = torch.autograd.grad(apart, [quantizer.vectors, near], allow_unused=True)
    assert frames is None  # it was projected anew
    used = torch.unique(words.codes[:, 0])
    mean = near.view(30, 2, 4)[words.codes[:, 0] == used[0], 0].mean(0)
    many = int((words.codes[:, 0] == used[0]).sum())
    torch.testing.assert_close(
        entries[used[0], 0], 2 * many / (30 * 8) * (quantizer.vectors[used[0], 0] - mean), atol=1e-6, rtol=1e-4
    )


@torch.no_grad()
def test_what_is_asked_of_entries_is_added_to_every_guess() -> None:
    waves = [0.1 * noise(samples, seed=samples) for samples in (3000, 5000)]
    plain, diverse = made().eval(), made(diversity=1.5).eval()
    objectives = [plain(batch(*waves)), diverse(batch(*waves))]
    assert objectives[0].count == objectives[1].count
    words, asked = diverse.quantized([diverse.network.framed(wave) for wave in waves])
    lengths = torch.tensor([float(len(word.codes)) for word in words])
    likely = torch.stack([word.likely * length / lengths.sum() for word, length in zip(words, lengths, strict=True)]).sum(0)
    perplexity = (-(likely * likely.log()).sum(1)).exp().sum()
    assert float(asked) == pytest.approx(1.5 * float(1 - perplexity / 40), rel=1e-4)
    apart = float(objectives[1].total - objectives[0].total) / objectives[0].count
    assert apart == pytest.approx(float(asked), rel=1e-3)
    used = torch.bincount(torch.cat([word.codes[:, 0] for word in words]), minlength=20) / lengths.sum()
    other = torch.bincount(torch.cat([word.codes[:, 1] for word in words]), minlength=20) / lengths.sum()
    by_hand = sum(math.exp(float(torch.special.entr(share).sum())) for share in (used, other)) / 2
    assert float(objectives[0].shown["perplexity"]) == pytest.approx(by_hand, rel=1e-4)


def test_collapsed_books_are_said_to_be() -> None:
    objective = made()
    assert "codebooks have collapsed" in objective.unwell({"perplexity": 1.1, "liveliness": 0.5})
    assert objective.unwell({"perplexity": 9.0, "liveliness": 0.5}) == ""
    assert "nothing to tell apart" in objective.unwell({"perplexity": 9.0, "liveliness": 0.001})


def test_channels_that_the_codebooks_do_not_divide_are_said() -> None:
    with pytest.raises(Refused, match="512 channels cannot be divided among 3 codebooks"):
        workbench.resolve({"run": "vq_wav2vec", "codebooks": 3})


@torch.no_grad()
def test_over_features_it_has_codes_and_no_convolutions() -> None:
    network = VqWav2vec(**TINY, front="features", reduce=2).network().eval()  # type: ignore[arg-type]
    wave = 0.1 * noise(8000)
    assert [(tap.name, tap.hop) for tap in network.card.taps] == [("codes", 320)] and network.card.hop == 320
    states, codes = network.encode([wave]).clip(0), network.tap([wave], "codes")["codes"][0]
    assert len(states) == 14 and len(codes) == network.frames(8000) == len(states[0]) == 25
    assert network.quantizer is not None
    torch.testing.assert_close(states[1], network.quantizer.chosen(codes))
