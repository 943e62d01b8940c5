"""Learnt codebooks: formulas with known answers, what a gradient sees, and entries that follow what chose them."""

import math

import pytest
import torch

from engine.nets.learnt_codes import (
    NUDGE,
    EmaCodes,
    GumbelCodes,
    annealed,
    choose,
    diversity,
    perplexity,
    shares,
)


def test_perplexity_counts_the_entries_that_are_used_alike() -> None:
    used = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.25, 0.25, 0]])
    torch.testing.assert_close(perplexity(used), torch.tensor([1.0, 2.0, 4.0, 2**1.5]))
    assert float(diversity(used[2:3])) == pytest.approx(0.0, abs=1e-6)
    assert float(diversity(used[:2])) == pytest.approx(1 - 3 / 8)
    spoilt = torch.tensor([[1.0, 0, 0, 0]], requires_grad=True)
    diversity(spoilt).backward()
    assert spoilt.grad is not None and bool(spoilt.grad.isfinite().all())
    codes = torch.tensor([[0, 3], [0, 3], [1, 3], [2, 3]])
    assert shares(codes, 4).tolist() == [[0.5, 0.25, 0.25, 0], [0, 0, 0, 1]]


def test_the_gradient_of_a_choice_is_that_of_the_softmax_at_its_temperature() -> None:
    scores = torch.tensor([[[1.0, 2.0, 0.5]]], requires_grad=True)
    towards = torch.tensor([1.0, -2.0, 3.0])
    choice = choose(scores, 0.5, draw=False)
    assert choice.codes.tolist() == [[1]] and choice.weights.tolist() == [[[0.0, 1.0, 0.0]]]
    (choice.weights[0, 0] @ towards).backward()
    p = [math.exp(2 * s) for s in (1.0, 2.0, 0.5)]
    p = [value / sum(p) for value in p]
    mean = sum(a * float(b) for a, b in zip(p, towards, strict=True))
    by_hand = [a * (float(b) - mean) / 0.5 for a, b in zip(p, towards, strict=True)]
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad[0, 0], torch.tensor(by_hand))
    torch.testing.assert_close(choice.likely[0], torch.tensor([1.0, 2.0, 0.5]).softmax(dim=0))


def test_what_is_drawn_follows_the_softmax_whatever_the_temperature() -> None:
    torch.manual_seed(0)
    odds = torch.tensor([0.6, 0.3, 0.1])
    codes = choose(odds.log().expand(20_000, 1, 3), 0.3, draw=True).codes
    torch.testing.assert_close(shares(codes, 3)[0], odds, atol=0.012, rtol=0)  # three standard deviations


def test_a_temperature_comes_down_to_its_end_and_stays() -> None:
    assert [annealed(step, 2.0, 0.5, 0.5) for step in range(4)] == [2.0, 1.0, 0.5, 0.5]
    assert annealed(10_000_000, 2.0, 0.5, 0.999) == 0.5


def test_gumbel_codes_are_the_entries_of_the_highest_scores_once_learnt() -> None:
    torch.manual_seed(0)
    codes = GumbelCodes(6, 2, 5, 8).eval()
    x = torch.randn(7, 6)
    said = codes(x)
    highest = (x @ codes.scores.weight.T).view(7, 2, 5).argmax(dim=2)
    assert torch.equal(said.codes, highest)
    by_hand = torch.cat([codes.vectors[0][highest[:, 0]], codes.vectors[1][highest[:, 1]]], dim=1)
    torch.testing.assert_close(said.vectors, by_hand)
    assert float(said.perplexity) == pytest.approx(float(perplexity(said.used).mean()))
    said.vectors.sum().backward()
    assert codes.scores.weight.grad is not None and bool(codes.scores.weight.grad.abs().sum() > 0)


def test_entries_are_the_moving_means_of_the_frames_that_chose_them_and_parts_make_the_whole() -> None:
    whole, parts = (EmaCodes(1, 2, 2, decay=0.75) for _ in range(2))
    start = torch.tensor([[[0.0, 0.0], [10.0, 10.0]]])
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]])
    then = torch.tensor([[4.0, 4.0]])
    for codes in (whole, parts):
        codes.vectors.copy_(start)
    said = whole(first)
    assert said.codes[:, 0].tolist() == [0, 0, 1]
    assert said.vectors.tolist() == [[0, 0], [0, 0], [10, 10]]
    parts(first[:1]), parts(first[1:])
    for codes in (whole, parts):
        codes.follow()
        torch.testing.assert_close(codes.vectors[0], torch.tensor([[0.5, 0.5], [9.0, 9.0]]))
        codes(then)
        codes.follow()
        # Of the first entry's 0.25 * 2 frames three quarters are remembered, to which come 0.25 * 1.
        torch.testing.assert_close(codes.vectors[0, 0], torch.full((2,), (0.375 * 0.5 + 0.25 * 4) / 0.625))
        torch.testing.assert_close(codes.counts, torch.tensor([[0.625, 0.1875]]))
        assert codes.eval()(first).codes[:, 0].tolist() == [0, 0, 1]
        before = codes.vectors.clone()
        codes.follow()  # nothing was learnt from: what is remembered fades, the entries stay
        torch.testing.assert_close(codes.vectors, before)


def test_the_gradient_passes_the_nearest_entry_as_if_nothing_had_been_replaced() -> None:
    codes = EmaCodes(2, 3, 2)
    x = torch.randn(5, 4, requires_grad=True)
    said = codes(x)
    (said.vectors * torch.arange(20.0).view(5, 4)).sum().backward()
    assert x.grad is not None and torch.equal(x.grad, torch.arange(20.0).view(5, 4))
    assert torch.equal(said.vectors.detach(), codes.chosen(said.codes))


def test_an_idle_entry_takes_half_of_the_one_used_most() -> None:
    codes = EmaCodes(1, 3, 1, decay=0.5, least=0.1)
    codes.vectors.copy_(torch.tensor([[[1.0], [5.0], [100.0]]]))
    codes(torch.tensor([[1.0], [1.0], [1.0], [1.0], [5.0], [5.0]]))
    codes.follow()
    assert codes.counts.tolist() == [[1.0, 1.0, 1.0]]
    torch.testing.assert_close(codes.vectors.flatten(), torch.tensor([1 + NUDGE, 5.0, 1 - NUDGE]))


def test_split_entries_find_all_heaps_where_the_others_share_two() -> None:
    """Eight heaps, entries that all begin far away: only with splitting does each heap get one."""
    torch.manual_seed(0)
    heaps = 10 * torch.randn(8, 4)
    found = []
    for least in (0.0, 0.1):
        torch.manual_seed(1)
        codes = EmaCodes(1, 8, 4, decay=0.9, least=least)
        codes.vectors.add_(100)
        for _ in range(60):
            codes(heaps.repeat(10, 1) + 0.1 * torch.randn(80, 4))
            codes.follow()
        found.append(float(codes.eval()(heaps).perplexity))
    assert found[0] < 3 and found[1] > 7.5
