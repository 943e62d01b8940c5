"""k-means on clouds that lie apart, on rows that repeat, and against scikit-learn."""

import pytest
import torch

from engine import clusters, information


def test_clouds_that_lie_apart_are_found() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(8).repeat_interleave(50)
    x = torch.randn(8, 5, generator=generator)[truth] * 20 + torch.randn(400, 5, generator=generator)
    centres = clusters.kmeans(x, 8, seed=1)
    assert information.adjusted(clusters.assign(x, centres), truth) == pytest.approx(1.0)
    assert torch.equal(centres, clusters.kmeans(x, 8, seed=1))


def test_rows_that_repeat_do_not_break_it() -> None:
    x = torch.tensor([[0.0, 0], [0, 0], [0, 0], [1, 1]])
    centres = clusters.kmeans(x, 3)
    assert bool(torch.isfinite(centres).all())
    assert len(torch.unique(clusters.assign(x, centres))) == 2


def test_a_cluster_that_nothing_is_near_takes_the_row_that_lies_farthest(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.tensor([[50.0], [50.1], [59.0], [59.1]])
    monkeypatch.setattr(clusters, "_seeds", lambda *_: torch.tensor([[50.0], [500.0], [-500.0]]))
    centres = clusters.kmeans(x, 3)
    assert len(torch.unique(clusters.assign(x, centres))) == 3


def crowd(n: int = 3000, d: int = 20) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    which = torch.randint(150, (n,), generator=generator)
    return 2 * torch.randn(150, d, generator=generator)[which] + torch.randn(n, d, generator=generator)


def test_rows_lie_as_near_to_the_centres_as_scikit_learn_brings_them() -> None:
    from sklearn.cluster import KMeans

    x = crowd()
    peers = [KMeans(100, n_init=1, random_state=seed).fit(x.numpy()) for seed in range(3)]
    ours = [clusters.kmeans(x, 100, seed=seed) for seed in range(3)]
    peer, found = peers[0], ours[0]
    assert sum(clusters.inertia(x, one) for one in ours) < 1.02 * sum(one.inertia_ / len(x) for one in peers)
    assert clusters.inertia(x, torch.from_numpy(peer.cluster_centers_)) == pytest.approx(peer.inertia_ / len(x), rel=1e-5)
    nearest = torch.cdist(x.double(), found.double()).argmin(1)
    assert torch.equal(clusters.assign(x, found), nearest)


def test_each_centre_is_the_mean_of_its_rows_once_nothing_moves() -> None:
    x = crowd(500, 3)
    centres = clusters.kmeans(x, 10, tolerance=0, steps=1000)
    nearest = clusters.assign(x, centres)
    for cluster in range(10):
        assert torch.allclose(centres[cluster], x[nearest == cluster].mean(0), atol=1e-5)


def test_a_large_mean_does_not_drown_the_differences() -> None:
    x = crowd()
    expected = clusters.inertia(x, clusters.kmeans(x, 100))
    assert clusters.inertia(x + 3000, clusters.kmeans(x + 3000, 100)) == pytest.approx(expected, rel=0.01)


def test_distances_at_half_the_precision_cost_little() -> None:
    x = crowd() + 30
    full, half = (clusters.kmeans(x, 100, distances=dtype) for dtype in (torch.float32, torch.bfloat16))
    assert clusters.inertia(x, full) < clusters.inertia(x, half) * 1.01
    assert clusters.inertia(x, half) < 1.01 * clusters.inertia(x, full)


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = crowd(1000)
    whole = clusters.kmeans(x, 30)
    monkeypatch.setattr(clusters, "CHUNK", 170)
    assert torch.allclose(clusters.kmeans(x, 30), whole, atol=1e-4)


def test_seeds_lie_apart() -> None:
    x = torch.cat([torch.randn(290, 2), torch.tensor([[1000.0, 0], [0, 1000], [-1000, 0]])])
    seeds = clusters._seeds(x, 6, torch.Generator().manual_seed(1))
    assert int((seeds.abs() > 500).any(1).sum()) == 3 and len(torch.unique(seeds, dim=0)) == 6


def test_what_cannot_be_clustered_is_said() -> None:
    with pytest.raises(ValueError, match="as many rows"):
        clusters.kmeans(torch.zeros(3, 2), 4)
    with pytest.raises(ValueError, match="not numbers"):
        clusters.kmeans(torch.full((3, 2), torch.nan), 2)
