"""Canonical correlations against closed forms and planted truth."""

import math

import pytest
import torch

from probing.stats import cca


def views(n: int = 4000, rho: tuple[float, ...] = (0.9, 0.6, 0.3)) -> tuple[torch.Tensor, torch.Tensor]:
    """Two views whose population canonical correlations are `rho`, hidden behind invertible maps."""
    generator = torch.Generator().manual_seed(0)
    r = torch.tensor(rho, dtype=torch.float64)
    shared, own = (torch.randn(n, len(rho), generator=generator, dtype=torch.float64) for _ in range(2))
    x, y = shared, shared * r + own * (1 - r * r).sqrt()
    turn = torch.randn(len(rho), len(rho), generator=generator, dtype=torch.float64)
    return x @ turn + 3.0, y @ torch.linalg.inv(turn) - 2.0


def test_known_correlations_are_found() -> None:
    found = cca.correlations(*views(200_000))
    assert found.tolist() == pytest.approx([0.9, 0.6, 0.3], abs=0.01)
    assert cca.mean(*views(200_000)) == pytest.approx(0.6, abs=0.01)


def test_an_invertible_map_changes_nothing_and_a_copy_gives_one() -> None:
    x, y = views()
    again = cca.correlations(x * torch.tensor([30.0, 1.0, 0.03]), y)
    assert again.tolist() == pytest.approx(cca.correlations(x, y).tolist(), abs=1e-9)
    assert cca.mean(x, x * 5 + 1) == pytest.approx(1.0)
    assert cca.pwcca(x, -x) == pytest.approx(1.0)
    assert cca.svcca(x, x) == pytest.approx(1.0)


def test_a_dead_dimension_is_left_out() -> None:
    x, y = views()
    dead = torch.cat([x, torch.full((len(x), 1), 7.0, dtype=x.dtype), x[:, :1] + x[:, 1:2]], 1)
    assert cca.correlations(dead, y).tolist() == pytest.approx(cca.correlations(x, y).tolist(), abs=1e-6)


def test_float32_is_computed_in_float64() -> None:
    x, y = views()
    assert cca.mean(x.float(), y.float()) == pytest.approx(cca.mean(x, y), abs=1e-5)


# The table of the law for independent views, which simulation gave too: (p, q, n) -> mean correlation.
@pytest.mark.parametrize(
    ("p", "q", "n", "level"),
    [(768, 768, 2000, 0.55), (768, 768, 10_000, 0.24), (768, 80, 10_000, 0.27), (768, 39, 7_700, 0.31)],
)
def test_the_level_of_noise_is_the_known_one(p: int, q: int, n: int, level: float) -> None:
    assert cca.null_level(p, q, n) == pytest.approx(level, abs=0.006)
    assert cca.null_level(q, p, n) == cca.null_level(p, q, n)


@pytest.mark.parametrize(("p", "q", "n"), [(60, 60, 400), (80, 20, 1000)])
def test_independent_noise_meets_the_law_and_is_gone_when_held_out(p: int, q: int, n: int) -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(n, d, generator=generator, dtype=torch.float64) for d in (p, q))
    more_x, more_y = (torch.randn(n, d, generator=generator, dtype=torch.float64) for d in (p, q))
    assert cca.mean(x, y) == pytest.approx(cca.null_level(p, q, n), abs=0.01)
    assert abs(cca.held_out(x, y, more_x, more_y)) < 0.02


def test_as_many_directions_as_rows_make_every_correlation_one() -> None:
    assert cca.null_level(50, 50, 100) == 1.0


def test_held_out_finds_the_planted_correlations() -> None:
    x, y = views(20_000)
    assert cca.held_out(x[:10_000], y[:10_000], x[10_000:], y[10_000:]) == pytest.approx(0.6, abs=0.02)


def test_projection_weights_follow_their_definition() -> None:
    # Orthogonal dimensions of unlike size, each paired with one of the other view: the canonical variates are the
    # dimensions themselves, so the weight of each is its size.
    n = 4
    h = torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]).mT / math.sqrt(n)
    x = h[:, :2] * torch.tensor([5.0, 1.0])
    y = torch.stack([0.8 * h[:, 0] + 0.6 * h[:, 2], h[:, 1]], 1)
    expected = (5 * 0.8 + 1 * 1.0) / 6
    assert cca.pwcca(x, y) == pytest.approx(expected)
    # Seen from y the two are of one size, but its first dimension is made of h0 and h2.
    assert cca.pwcca(x, y, weights="y") == pytest.approx((0.8 + 1.0) / 2)
    assert cca.pwcca(x, y, weights="mean") == pytest.approx((expected + 0.9) / 2)


def test_on_centred_rows_the_layerwise_variant_is_the_definition_and_on_others_it_is_not() -> None:
    x, y = views()
    x = x[:, :2] - x[:, :2].mean(0)
    assert cca.pwcca(x, y, variant="layerwise") == pytest.approx(cca.pwcca(x, y))
    assert cca.pwcca(x + 2, y) == pytest.approx(cca.pwcca(x, y))
    assert abs(cca.pwcca(x + 2, y, variant="layerwise") - cca.pwcca(x, y)) > 1e-3
    assert abs(cca.pwcca(x, y, variant="svcca2019") - cca.pwcca(x, y)) > 1e-3


def test_svcca_keeps_the_strong_directions_by_the_reading_that_is_asked_for() -> None:
    generator = torch.Generator().manual_seed(2)
    base = torch.linalg.qr(torch.randn(500, 6, generator=generator, dtype=torch.float64)).Q
    base = base - base.mean(0)
    x = base[:, :3] * torch.tensor([10.0, 1.0, 0.9])
    y = torch.cat([base[:, :1], base[:, 4:6]], 1) * torch.tensor([10.0, 1.0, 0.9])
    # The first direction holds 100 / 101.81 = 98.2 % of the variance but 10 / 11.9 = 84 % of the singular values.
    by_variance = cca.svcca(x, y, keep=0.98)
    by_size = cca.svcca(x, y, keep=0.98, energy="singular")
    assert by_variance == pytest.approx(1.0, abs=1e-3)
    assert by_size == pytest.approx(1 / 3, abs=0.1)  # three directions of each, one shared


def test_views_of_other_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="same rows"):
        cca.mean(torch.zeros(3, 2), torch.zeros(4, 2))
