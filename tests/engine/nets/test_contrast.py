"""The scores and losses of contrastive pretexts against closed forms."""

import math

import pytest
import torch

from engine.nets.contrast import cosines, others, scores, surprise, suspicion, told_apart, without_twins


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def test_others_are_never_the_frame_itself_and_each_is_as_likely() -> None:
    compared = others(6, 6000, generator())
    assert compared.shape == (6, 6001) and torch.equal(compared[:, 0], torch.arange(6))
    for frame in range(6):
        counts = torch.bincount(compared[frame, 1:], minlength=6)
        assert counts[frame] == 0
        rest = counts[torch.arange(6) != frame]
        assert ((rest - 1200).abs() < 5 * math.sqrt(1200)).all()


def test_others_come_from_the_whole_table() -> None:
    compared = others(3, 5000, generator(), first=2, of=7)
    assert compared[:, 0].tolist() == [2, 3, 4]
    for own, rivals in zip(compared[:, 0], compared[:, 1:], strict=True):
        assert set(rivals.tolist()) == set(range(7)) - {int(own)}


def test_a_lonely_frame_is_its_own_rival() -> None:
    assert torch.equal(others(1, 3, generator()), torch.zeros(1, 4, dtype=torch.long))


def test_scores_are_those_of_gathered_rows() -> None:
    guesses, table = torch.randn(4, 8, generator=generator()), torch.randn(9, 8, generator=generator())
    compared = torch.randint(9, (4, 5), generator=generator())
    by_hand = (guesses[:, None] * table[compared]).sum(2)
    torch.testing.assert_close(scores(guesses, table, compared), by_hand)
    by_hand = torch.nn.functional.cosine_similarity(guesses[:, None], table[compared], dim=2) / 0.1
    torch.testing.assert_close(cosines(guesses, table, compared, 0.1), by_hand)


def test_scores_without_a_preference_cost_the_logarithm_of_the_choices() -> None:
    assert surprise(torch.full((3, 129), 7.0)).tolist() == pytest.approx([math.log(129)] * 3)
    assert float(told_apart(torch.full((3, 129), 7.0))) == 0


def test_surprise_of_three_scores_by_hand() -> None:
    scored = torch.tensor([[2.0, 1.0, -1.0]])
    assert float(surprise(scored)) == pytest.approx(-math.log(math.e**2 / (math.e**2 + math.e + 1 / math.e)))
    assert float(surprise(torch.tensor([[50.0, 0.0, 0.0]]))) == pytest.approx(0, abs=1e-6)


def test_suspicion_by_hand() -> None:
    scored, sigmoid = torch.tensor([[2.0, 1.0, -3.0]]), lambda x: 1 / (1 + math.exp(-x))
    true, rivals = -math.log(sigmoid(2)), [-math.log(sigmoid(-1)), -math.log(sigmoid(3))]
    assert float(suspicion(scored, 2)) == pytest.approx(true + sum(rivals))
    assert float(suspicion(scored, 1)) == pytest.approx(true + sum(rivals) / 2)


def test_told_apart_counts_the_guesses_that_are_right() -> None:
    assert float(told_apart(torch.tensor([[2.0, 1.0], [1.0, 2.0], [1.0, 1.0], [3.0, -1.0]]))) == 0.5


def test_others_with_the_codes_of_the_true_row_do_not_count() -> None:
    codes = torch.tensor([[0, 1], [0, 2], [0, 1], [3, 1]])
    compared = torch.tensor([[0, 1, 2, 3]])
    told = without_twins(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), codes, compared)
    assert told.tolist() == [[1.0, 2.0, -math.inf, 4.0]]
    alone = without_twins(torch.tensor([[1.0, 2.0]]), codes, torch.tensor([[0, 2]]))
    assert float(surprise(alone)) == 0
