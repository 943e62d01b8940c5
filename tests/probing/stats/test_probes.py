"""Linear probes against scikit-learn, planted labels and badly conditioned layers."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from probing.stats import probes


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


def test_it_is_the_optimum_that_scikit_learn_finds() -> None:
    x, y = layers()
    probe = probes.linear(x, y, strengths=(1e-3,), tolerance=1e-12)
    assert bool(probe.converged.all())
    for layer in range(3):
        z = ((x[layer] - x[layer].mean(0)) / x[layer].std(0, correction=0)).double().numpy()
        peer = LogisticRegression(C=1 / (len(y) * 1e-3), max_iter=20_000, tol=1e-10).fit(z, y.numpy())
        ours = torch.softmax(probe.scores(x)[layer], -1).numpy()
        assert abs(ours - peer.predict_proba(z)).max() < 1e-3


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


def test_several_strengths_need_rows_to_choose_on() -> None:
    x, y = layers()
    with pytest.raises(ValueError, match="validation rows"):
        probes.linear(x, y)


def test_scores_can_be_differentiated_back_to_the_features() -> None:
    x, y = layers()
    probe = probes.linear(x, y, strengths=(1e-2,))
    x.requires_grad_()
    probe.scores(x).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None and float(x.grad.abs().sum()) > 0
