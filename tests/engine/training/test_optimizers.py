"""What moves the weights, against numbers worked out by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from engine.training import optimizers
from engine.training.optimizers import Optimizer, rate_at
from engine.training.plan import Plan


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


def moved(kind: Optimizer, gradients: list[list[float]], decay: float) -> list[list[float]]:
    """A matrix and the biases, both 2 and -1 at first, after steps of rate 0.1 along these gradients."""
    layer = nn.Linear(1, 2)
    layer.load_state_dict({"weight": torch.tensor([[2.0], [-1.0]]), "bias": torch.tensor([2.0, -1.0])})
    optimizer = optimizers.make(layer, kind, 0.1, decay, (0.9, 0.999), 0.0)
    for gradient in gradients:
        layer.weight.grad, layer.bias.grad = torch.tensor(gradient)[:, None], torch.tensor(gradient)
        optimizer.step()
    return [layer.weight.flatten().tolist(), layer.bias.tolist()]


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "Lamb"])
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_three_steps_follow_the_formula(kind: Optimizer, decay: float) -> None:
    gradients = [[3.0, 1.0], [-1.0, 4.0], [0.5, -8.0]]
    expected = []
    for lost in (decay, 0.0):  # the biases have no decay
        weight, mean, square = np.array([2.0, -1.0]), np.zeros(2), np.zeros(2)
        for number, gradient in enumerate(map(np.array, gradients), 1):
            mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
            way = mean / (1 - 0.9**number) / np.sqrt(square / (1 - 0.999**number)) + lost * weight
            trust = np.linalg.norm(weight) / np.linalg.norm(way) if kind == "Lamb" else 1.0
            weight = weight - 0.1 * trust * way
        expected.append(weight.tolist())
    for found, wanted in zip(moved(kind, gradients, decay), expected, strict=True):
        assert found == pytest.approx(wanted, rel=1e-5)


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
