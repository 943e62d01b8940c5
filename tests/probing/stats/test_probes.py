"""Linear probes against scikit-learn, planted labels and badly conditioned layers."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from probing.stats import logistic, probes


def layers(n: int = 900, d: int = 20, classes: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Three layers of which only the last two carry the label; the last in directions of tiny variance."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(classes, (n,), generator=generator)
    means = torch.randn(classes, d, generator=generator)
    x = torch.randn(3, n, d, generator=generator)
    x[1] += means[y]
    x[2] += means[y]
    turn = torch.linalg.qr(torch.randn(d, d, generator=generator)).Q
    x[2] = x[2] @ turn * torch.logspace(2, -2, d) @ turn.mT
    return x, y


def loss(z: np.ndarray, y: np.ndarray, weight: np.ndarray, bias: np.ndarray, strength: float) -> float:  # type: ignore[type-arg]
    """What a probe minimises: mean cross-entropy and the penalty."""
    scores = torch.from_numpy(z @ weight + bias)
    return float(torch.nn.functional.cross_entropy(scores, torch.from_numpy(y))) + strength / 2 * float((weight**2).sum())


@pytest.mark.parametrize(("n", "d"), [(900, 20), (60, 80)])  # by the covariance, and in the span of the rows
@pytest.mark.parametrize("strength", [1e-1, 1e-3])
def test_it_is_the_optimum_that_scikit_learn_finds(n: int, d: int, strength: float) -> None:
    x, y = layers(n=n, d=d)
    probe = probes.linear(x, y, strengths=(strength,), tolerance=1e-10)
    assert bool(probe.converged.all())
    for layer in range(3):
        scale = x[layer].double().std(0, correction=0).numpy()
        z = (x[layer].double().numpy() - x[layer].double().mean(0).numpy()) / scale
        peer = LogisticRegression(C=1 / (n * strength), max_iter=20_000, tol=1e-10).fit(z, y.numpy())
        ours = torch.softmax(probe.scores(x)[layer], -1).numpy()
        assert abs(ours - peer.predict_proba(z)).max() < 1e-4
        weight = probe.weight[layer].numpy() * scale[:, None]
        bias = probe.bias[layer].numpy() + x[layer].double().mean(0).numpy() @ probe.weight[layer].numpy()
        mine = loss(z, y.numpy(), weight, bias, strength)
        assert mine == pytest.approx(loss(z, y.numpy(), peer.coef_.T, peer.intercept_, strength), abs=1e-8)


def test_float32_sums_of_a_large_layer_reach_the_same_optimum() -> None:
    x, y = layers(n=3600, d=300)
    assert x[0].numel() > logistic.SMALL and x.dtype == torch.float32
    quick = probes.linear(x[1:2], y, strengths=(1e-2,), tolerance=1e-6)
    exact = probes.linear(x[1:2].double(), y, strengths=(1e-2,), tolerance=1e-9)
    assert bool(quick.converged.all()) and bool(exact.converged.all())
    assert int(quick.steps.max()) < 40  # the curvature that is guessed is close
    far = [torch.nn.functional.cross_entropy(probe.scores(x[1:2])[0], y) for probe in (quick, exact)]
    assert abs(float(far[0] - far[1])) < 1e-4


def test_the_strength_is_the_one_that_reads_other_rows_best() -> None:
    generator = torch.Generator().manual_seed(2)
    y = torch.arange(2400) % 4
    x = torch.randn(1, 2400, 150, generator=generator)
    x[0, :, :4] += 0.8 * torch.nn.functional.one_hot(y, 4)
    parts = x[:, :400], y[:400], x[:, 400:1400], y[400:1400], x[:, 1400:], y[1400:]
    accuracy = {
        strength: float(probes.linear(parts[0], parts[1], strengths=(strength,)).accuracy(parts[4], parts[5])[0])
        for strength in probes.STRENGTHS
    }
    found = probes.linear(parts[0], parts[1], valid=(parts[2], parts[3]))
    assert float(found.accuracy(parts[4], parts[5])[0]) > max(accuracy.values()) - 0.02
    assert accuracy[1e-6] < max(accuracy.values()) - 0.04  # so there was something to choose


def test_the_names_of_the_classes_and_the_order_of_the_rows_change_nothing() -> None:
    x, y = layers(n=400)
    names, order = torch.tensor([3, 0, 5, 1, 2, 4]), torch.randperm(300, generator=torch.Generator().manual_seed(0))
    one = probes.linear(x[:, :300], y[:300], strengths=(1e-2,), tolerance=1e-12)
    other = probes.linear(x[:, order], names[y[order]], strengths=(1e-2,), tolerance=1e-12)
    assert torch.equal(names[one.predict(x)], other.predict(x))
    again = probes.linear(x[:, :300], y[:300], strengths=(1e-2,), tolerance=1e-12)
    assert torch.equal(one.weight, again.weight) and torch.equal(one.bias, again.bias)


def test_a_planted_label_is_read_only_from_the_layers_that_carry_it() -> None:
    x, y = layers()
    probe = probes.linear(x[:, :600], y[:600], valid=(x[:, 600:750], y[600:750]))
    accuracy = probe.accuracy(x[:, 750:], y[750:]).tolist()
    assert accuracy[0] < 0.35
    assert accuracy[1] > 0.9 and accuracy[2] > 0.75
    assert bool(probe.converged.all())
    assert int(probe.steps.max()) < 100


def test_each_layer_has_the_result_it_has_alone() -> None:
    x, y = layers()
    together = probes.linear(x, y, strengths=(1e-2,), tolerance=1e-12)
    alone = probes.linear(x[1:2], y, strengths=(1e-2,), tolerance=1e-12)
    assert torch.allclose(together.weight[1], alone.weight[0], atol=1e-5)


def test_constant_features_and_more_dimensions_than_rows_are_no_trouble() -> None:
    x, y = layers(n=40, d=60, classes=2)
    x[:, :, 3] = 5.0
    probe = probes.linear(x, y, strengths=(1e-2,))
    assert bool(torch.isfinite(probe.weight).all()) and bool(probe.converged.all())
    assert float(probe.accuracy(x, y).min()) == 1.0
    assert float(probe.weight[:, 3].abs().max()) < 1e-9


def test_a_run_that_is_cut_short_says_so() -> None:
    x, y = layers()
    probe = probes.linear(x, y, strengths=(1e-5,), steps=2)
    assert not bool(probe.converged.any())


def test_one_class_and_one_row_of_a_class_give_numbers() -> None:
    x, y = layers(n=50, d=5)
    alone = probes.linear(x, torch.zeros_like(y), classes=2, strengths=(1e-2,))
    assert bool(torch.isfinite(alone.weight).all()) and float(alone.accuracy(x, torch.zeros_like(y)).min()) == 1
    rare = torch.where(torch.arange(50) == 7, 1, 0)
    probe = probes.linear(x, rare, valid=(x, rare))
    assert bool(torch.isfinite(probe.weight).all()) and bool(probe.converged.all())


def test_layers_that_are_the_same_for_all_rows_read_nothing() -> None:
    _, y = layers(n=50)
    probe = probes.linear(torch.full((1, 50, 4), 3.0), y, strengths=(1e-2,))
    assert float(probe.weight.abs().max()) == 0 and bool(probe.converged.all())
    assert torch.allclose(torch.softmax(probe.bias[0], -1), torch.bincount(y).double() / 50, atol=1e-3)


def test_wrong_shapes_are_refused_in_sentences() -> None:
    with pytest.raises(ValueError, match=r"takes x \(layers, n, d\)"):
        probes.linear(torch.zeros(4, 3), torch.zeros(4, dtype=torch.long), strengths=(1.0,))
    with pytest.raises(ValueError, match="too few"):
        probes.linear(torch.zeros(1, 1, 3), torch.zeros(1, dtype=torch.long), strengths=(1.0,))
    with pytest.raises(ValueError, match="above 0"):
        probes.linear(torch.zeros(1, 4, 3), torch.zeros(4, dtype=torch.long), strengths=(0.0,))


def test_without_validation_rows_some_of_its_own_are_held_out_to_choose_and_all_are_fitted() -> None:
    x, y = layers()
    probe = probes.linear(x[:, :600], y[:600], device="cpu")
    assert probe.accuracy(x[:, 600:], y[600:])[1] > 0.9 and bool(probe.converged.all())
    for layer, strength in enumerate(probe.strength.tolist()):
        alone = probes.linear(x[layer : layer + 1, :600], y[:600], strengths=(strength,), tolerance=1e-9)
        ours, theirs = probe.scores(x)[layer].softmax(-1), alone.scores(x[layer : layer + 1])[0].softmax(-1)
        assert float((ours - theirs).abs().mean()) < 0.02
    with pytest.raises(ValueError, match="too few to choose"):
        probes.linear(x[:, :4], y[:4])


def test_scores_can_be_differentiated_back_to_the_features() -> None:
    x, y = layers()
    probe = probes.linear(x, y, strengths=(1e-2,))
    x.requires_grad_()
    probe.scores(x).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None and float(x.grad.abs().sum()) > 0


def test_a_codelength_learns_and_chooses_from_rows_before_its_block_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(1, 200, 5, generator=generator), torch.randint(0, 3, (200,), generator=generator)
    seen: list[tuple[int, int]] = []  # rows that were fitted, and rows that the strength was chosen on
    solve = probes.linear

    def spy(x: torch.Tensor, y: torch.Tensor, **settings: Any) -> Any:
        valid = settings.get("valid")
        if valid is not None:
            seen.append((len(y), len(valid[1])))
        return solve(x, y, **settings)

    monkeypatch.setattr(probes, "linear", spy)
    code = probes.codelength(x, y, classes=3)
    assert [fit + held for fit, held in seen] == code.ends[:-1]
    assert all(held == max(1, (fit + held) // 5) for fit, held in seen)
