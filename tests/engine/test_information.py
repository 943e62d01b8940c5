"""Information of clusters and labels against tables worked out by hand and scikit-learn."""

import math

import numpy as np
import pytest
import torch

from engine import information


def rows(table: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Clusters and labels that meet as often as the table says."""
    pairs = [(i, j) for i, line in enumerate(table) for j, count in enumerate(line) for _ in range(count)]
    return torch.tensor([i for i, _ in pairs]), torch.tensor([j for _, j in pairs])


def test_a_known_table() -> None:
    clusters, labels = rows([[2, 1], [1, 4]])
    expected = sum(n / 8 * math.log(n / 8 / (a / 8 * b / 8)) for n, a, b in ((2, 3, 3), (1, 3, 5), (1, 5, 3), (4, 5, 5)))
    assert information.mutual(clusters, labels) == pytest.approx(expected)
    assert information.entropy(labels) == pytest.approx(-(3 / 8 * math.log(3 / 8) + 5 / 8 * math.log(5 / 8)))
    # Each entropy is raised by (filled cells - 1) / 2n: (1 + 1 - 3) / 16.
    assert information.mutual(clusters, labels, correction="miller-madow") == pytest.approx(expected - 1 / 16)
    assert information.purity(clusters, labels) == pytest.approx(6 / 8)


def test_a_copy_tells_all_and_independence_nothing() -> None:
    clusters, labels = rows([[5, 0, 0], [0, 5, 0], [0, 0, 5]])
    assert information.mutual(clusters, labels) == pytest.approx(math.log(3))
    assert information.adjusted(clusters, labels) == pytest.approx(1.0)
    assert information.purity(labels, clusters) == 1.0
    assert information.mutual(*rows([[2, 4], [3, 6]])) == pytest.approx(0.0, abs=1e-12)


def test_the_adjusted_value_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import adjusted_mutual_info_score, mutual_info_score

    random = np.random.default_rng(0)
    for n, a, b in ((50, 5, 7), (300, 20, 12), (40, 40, 3), (1000, 2, 100)):
        labels = random.integers(a, size=n)
        clusters = np.where(random.random(n) < 0.5, labels % b, random.integers(b, size=n))
        found = torch.from_numpy(clusters), torch.from_numpy(labels)
        assert information.adjusted(*found) == pytest.approx(adjusted_mutual_info_score(labels, clusters), abs=1e-9)
        assert information.mutual(*found) == pytest.approx(mutual_info_score(labels, clusters), abs=1e-12)


def test_what_chance_gives_is_that_of_scikit_learn_for_long_tables() -> None:
    from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

    random = np.random.default_rng(1)
    for n, a, many in ((30_000, 200, 40), (3_000, 1_500, 40), (5_000, 2, 40), (60, 3, 2)):
        shares = 1 / np.arange(1, many + 1) ** (1 if many > 2 else 4)  # of two, one is so frequent that it must meet all
        labels = random.choice(many, size=n, p=shares / shares.sum())
        clusters = random.choice(a, size=n, p=np.arange(1, a + 1) / np.arange(1, a + 1).sum())
        table = contingency_matrix(labels, clusters)
        expected = expected_mutual_information(table, n)
        pair = torch.from_numpy(clusters), torch.from_numpy(labels)
        found = information._expected(*(torch.unique(each, return_counts=True)[1] for each in pair))
        assert found == pytest.approx(expected, abs=1e-9)
        assert information.purity(*pair) == pytest.approx(table.max(0).sum() / n)
        assert information.purity(*pair[::-1]) == pytest.approx(table.max(1).sum() / n)


def test_chance_gives_much_information_on_few_rows_and_none_when_adjusted() -> None:
    generator = torch.Generator().manual_seed(0)
    clusters, labels = torch.randint(100, (500,), generator=generator), torch.randint(39, (500,), generator=generator)
    assert information.mutual(clusters, labels) > 1.5
    assert abs(information.adjusted(clusters, labels)) < 0.03
    many = torch.randint(100, (20_000,), generator=generator), torch.randint(39, (20_000,), generator=generator)
    bias = 38 * 99 / 2 / 20_000
    assert information.mutual(*many) == pytest.approx(bias, rel=0.1)
    assert abs(information.mutual(*many, correction="miller-madow")) < 0.01


def test_lists_of_unlike_length_are_refused() -> None:
    with pytest.raises(ValueError, match="one for each row"):
        information.mutual(torch.zeros(3, dtype=torch.long), torch.zeros(4, dtype=torch.long))
