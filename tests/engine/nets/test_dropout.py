"""Dropout: its share, its scale, and that it is silent when nothing is learnt."""

import pytest
import torch
from torch.nn import functional

from engine.nets import dropout
from engine.nets.dropout import Dropout, attended, kept


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5, 0.9])
def test_the_share_is_dropped_and_the_rest_scaled_up(share: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(301, 333)
    left = Dropout(share).train()(x)
    assert abs(float((left == 0).float().mean()) - share) < 0.006
    assert torch.allclose(left[left != 0], torch.tensor(1 / (1 - share)))
    assert abs(float(left.mean()) - 1) < 0.02


def test_neighbours_are_drawn_apart() -> None:
    torch.manual_seed(0)
    mask = kept(torch.Size((1_000_000,)), 0.5).float() - 0.5
    for lag in range(1, 9):  # four draws share a number of the generator
        assert abs(float((mask[lag:] * mask[:-lag]).mean()) * 4) < 0.01


def test_it_follows_the_generator_and_is_silent_when_nothing_is_learnt() -> None:
    x = torch.randn(7, 5)
    layer = Dropout(0.3)
    torch.manual_seed(1)
    first = layer(x)
    torch.manual_seed(1)
    assert torch.equal(layer(x), first) and not torch.equal(layer(x), first)
    assert torch.equal(layer.eval()(x), x) and torch.equal(Dropout(0.0)(x), x)


@pytest.mark.parametrize("biased", [False, True])
def test_attention_is_torchs_own_of_which_weights_are_dropped(biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 9, 4)
    bias = torch.randn(1, 2, 9, 9) if biased else None
    whole = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    assert torch.equal(attended(query, key, value, 0.0, bias), whole)
    rows = torch.stack([attended(query, key, value, 0.3, bias) for _ in range(4000)])
    assert torch.allclose(rows.mean(0), whole, atol=0.08) and float(rows.std(0).min()) > 0.01
    monkeypatch.setattr(dropout, "kept", lambda shape, share: torch.ones(shape, dtype=torch.uint8))
    assert torch.allclose(attended(query, key, value, 0.3, bias) * 0.7, whole, atol=1e-5)
