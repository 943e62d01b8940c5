"""What moves the weights, against numbers worked out by hand."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from engine import optimizers
from engine.optimizers import Optimizer, rate_at
from engine.train import Plan


def test_the_rate_rises_then_falls_to_zero() -> None:
    plan = Plan(100, 1.0, warm_up=0.1)
    rates = [plan.rate_at(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0) and rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5) and rates[100] == 0.0


def test_each_schedule_goes_where_it_says() -> None:
    assert [rate_at(step, 100, 2.0, 0.2, "steady") for step in (19, 20, 60, 99)] == [2.0] * 4
    cosine = [rate_at(step, 100, 2.0, 0.2, "cosine") for step in (20, 60, 100)]
    assert cosine == pytest.approx([2.0, 1.0, 0.0], abs=1e-12)
    held = [rate_at(step, 100, 2.0, 0.03, "hold", 0.1) for step in (0, 2, 3, 50, 90, 95, 99, 100)]
    assert held == pytest.approx([2 / 3, 2.0, 2.0, 2.0, 2.0, 1.0, 0.2, 0.0])
    assert rate_at(7, 100, 2.0, 0.0, "line") == pytest.approx(1.86)


def moved(kind: Optimizer, gradients: list[float], decay: float) -> tuple[float, float]:
    """One matrix weight and one bias, both 2 at first, after steps of rate 0.1 along these gradients."""
    layer = nn.Linear(1, 1)
    nn.init.constant_(layer.weight, 2.0)
    nn.init.constant_(layer.bias, 2.0)
    optimizer = optimizers.make(layer, kind, 0.1, decay, (0.9, 0.999), 0.0)
    for gradient in gradients:
        layer.weight.grad, layer.bias.grad = torch.full((1, 1), gradient), torch.full((1,), gradient)
        optimizer.step()
    return layer.weight.item(), layer.bias.item()


ADAM: Callable[[float, float, float], float] = lambda w, way, decay: w - 0.1 * (way + decay * w)  # noqa: E731
LAMB: Callable[[float, float, float], float] = lambda w, way, decay: (  # noqa: E731
    w - 0.1 * abs(w) / abs(way + decay * w) * (way + decay * w)
)


@pytest.mark.parametrize(("kind", "rule"), [("AdamW", ADAM), ("Lamb", LAMB)])
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_two_steps_follow_the_formula(kind: Optimizer, rule: Callable[[float, float, float], float], decay: float) -> None:
    gradients = [3.0, -1.0]
    expected = []
    for lost in (decay, 0.0):  # the bias has no decay
        weight, mean, square = 2.0, 0.0, 0.0
        for number, gradient in enumerate(gradients, 1):
            mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
            way = mean / (1 - 0.9**number) / math.sqrt(square / (1 - 0.999**number))
            weight = rule(weight, way, lost)
        expected.append(weight)
    assert moved(kind, gradients, decay) == pytest.approx(expected, rel=1e-5)


def test_lamb_moves_each_layer_by_the_rate_times_its_size() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(30, 20)
    before = [weight.detach().clone() for weight in layer.parameters()]
    optimizer = optimizers.make(layer, "Lamb", 0.01, 0.1, (0.9, 0.999), 1e-8)
    layer(torch.randn(4, 30)).square().sum().backward()
    optimizer.step()
    for weight, old in zip(layer.parameters(), before, strict=True):
        assert (weight - old).norm().item() == pytest.approx(0.01 * float(old.norm()), rel=1e-4)


def test_lamb_goes_on_from_its_state() -> None:
    def train(steps: int, state: dict[str, object] | None = None, layer: nn.Linear | None = None) -> tuple[nn.Linear, dict]:
        torch.manual_seed(0)
        layer = layer or nn.Linear(5, 3)
        optimizer = optimizers.make(layer, "Lamb", 0.01, 0.1, (0.9, 0.999), 1e-8)
        if state is not None:
            optimizer.load_state_dict(state)
        for _ in range(steps):
            optimizer.zero_grad()
            layer(torch.ones(2, 5)).square().sum().backward()
            optimizer.step()
        return layer, optimizer.state_dict()

    whole, _ = train(6)
    half, state = train(3)
    resumed, _ = train(3, state, half)
    assert torch.equal(whole.weight, resumed.weight) and torch.equal(whole.bias, resumed.bias)
