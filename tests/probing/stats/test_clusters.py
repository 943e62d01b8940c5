"""k-means on clouds that lie apart, and on rows that repeat."""

import pytest
import torch

from probing.stats import clusters, information


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
    x = torch.tensor([[0.0], [0.1], [9.0], [9.1]])
    monkeypatch.setattr(clusters, "_seeds", lambda *_: torch.tensor([[0.0], [100.0], [-100.0]]))
    centres = clusters.kmeans(x, 3)
    assert len(torch.unique(clusters.assign(x, centres))) == 3


def test_more_clusters_than_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="as many rows"):
        clusters.kmeans(torch.zeros(3, 2), 4)
