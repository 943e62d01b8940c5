"""A teacher that follows: its weights by the formula, what it hears of blocks, and how targets are normalised."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from engine.nets.contextual import Contextual
from engine.nets.following import Follower, memory_at, normalised, spread
from engine.nets.spectral_encoder import Shape as SpectralShape
from engine.nets.spectral_encoder import SpectralEncoder
from engine.nets.wav2vec2 import Shape, Wav2Vec2
from engine.upstream import Card

LENGTHS = [7, 12]


def card(width: int) -> Card:
    return Card("tiny", "Tiny", 2, (width,) * 3, 320, 400)


def on_sound(**changes: object) -> Wav2Vec2:
    values = {"position_depth": 2, "position_kernel": 3, "position_groups": 2, "position_norm": "layer", **changes}
    torch.manual_seed(0)
    return Wav2Vec2(card(16), Shape(16, 2, 2, 24, ((8, 10, 5), (8, 3, 2)), **values))  # type: ignore[arg-type]


def on_features() -> SpectralEncoder:
    torch.manual_seed(0)
    return SpectralEncoder(card(16), SpectralShape("mel", 2, 16, 2, 2, 24))


def frames(seed: int = 1) -> Tensor:
    return torch.randn(sum(LENGTHS), 16, generator=torch.Generator().manual_seed(seed))


def shifted(network: Contextual, by: float) -> None:
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(by)


@pytest.mark.parametrize("network", [on_sound(), on_features()], ids=["sound", "features"])
def test_weights_follow_by_the_formula(network: Contextual) -> None:
    teacher = Follower(network)
    begin = {name: weight.clone() for name, weight in teacher.network.named_parameters()}
    shifted(network, 1.0)
    memories = [0.9, 0.5, 0.99]
    for memory in memories:
        teacher.follow(network, memory)
    # While the network stands still, the distance to it shrinks by the memory of each step.
    left = 0.9 * 0.5 * 0.99
    theirs = dict(network.named_parameters())
    assert len(begin) > 20
    for name, weight in teacher.network.named_parameters():
        expected = theirs[name] if name.startswith("positions.") else left * begin[name] + (1 - left) * theirs[name]
        torch.testing.assert_close(weight, expected, rtol=1e-6, atol=1e-6)
    assert any(name.startswith("positions.") for name in begin) == isinstance(network, Wav2Vec2)


def test_a_step_is_exact_and_a_memory_of_one_changes_nothing() -> None:
    network = on_sound()
    teacher = Follower(network)
    before = teacher.network.blocks[0].qkv.weight.clone()  # type: ignore[union-attr, operator]
    shifted(network, 0.25)
    teacher.follow(network, 1.0)
    assert torch.equal(teacher.network.blocks[0].qkv.weight, before)  # type: ignore[union-attr, arg-type]
    teacher.follow(network, 0.75)
    expected = before * 0.75 + network.blocks[0].qkv.weight * 0.25  # type: ignore[union-attr, operator]
    torch.testing.assert_close(teacher.network.blocks[0].qkv.weight, expected, rtol=1e-7, atol=1e-8)  # type: ignore[union-attr, arg-type]


def test_the_memory_goes_from_one_to_the_other_in_a_line() -> None:
    assert [memory_at(step, 0.9, 0.99, 10) for step in (0, 10, 11, 1000)] == [0.9, 0.99, 0.99, 0.99]
    assert memory_at(5, 0.9, 0.99, 10) == pytest.approx(0.945)
    assert memory_at(0, 0.9, 0.99, 0) == 0.99


@pytest.mark.parametrize("network", [on_sound(), on_features()], ids=["sound", "features"])
def test_it_learns_nothing_drops_nothing_and_has_no_front(network: Contextual) -> None:
    teacher = Follower(network).train()
    assert not teacher.training and not any(module.training for module in teacher.modules())
    assert not any(weight.requires_grad for weight in teacher.parameters())
    assert not any(name.startswith(("network.front", "network.projection")) for name in teacher.state_dict())
    shared = {weight.data_ptr() for weight in network.parameters()}
    assert not shared & {weight.data_ptr() for weight in teacher.parameters()}
    x = frames().requires_grad_()
    assert not any(each.requires_grad for each in teacher.fed(x, LENGTHS))


@torch.no_grad()
def test_it_hears_feed_forward_nets_before_they_are_added() -> None:
    network = on_sound(norm_first=True).eval()
    fed = Follower(network).fed(frames(), LENGTHS)
    states = network.contextual(frames(), LENGTHS)
    for number, block in enumerate(network.blocks):
        mixed, _ = block._attend(block.attention_norm(states[number]), LENGTHS, None, False)  # type: ignore[union-attr, operator]
        torch.testing.assert_close(states[number] + mixed + fed[number], states[number + 1], rtol=1e-5, atol=1e-5)

    spectral = on_features().eval()
    fed = Follower(spectral).fed(frames(), LENGTHS)
    states = spectral.contextual(frames(), LENGTHS)
    for number, layer in enumerate(spectral.transformer.blocks):
        first = states[number][: LENGTHS[0]][None]
        middle = layer.attention_norm(first + layer.attention(first, None, False)[0])  # type: ignore[operator, union-attr]
        whole = layer.feed_norm(middle + fed[number][: LENGTHS[0]])  # type: ignore[operator]
        torch.testing.assert_close(whole[0], states[number + 1][: LENGTHS[0]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("network", [on_sound(), on_features()], ids=["sound", "features"])
def test_a_clip_is_heard_alike_alone_and_in_company(network: Contextual) -> None:
    teacher = Follower(network)
    together = teacher.fed(frames(), LENGTHS)
    for number, (alone, clips) in enumerate(zip(torch.split(frames(), LENGTHS), range(len(LENGTHS)), strict=True)):
        heard = teacher.fed(alone, [LENGTHS[clips]])
        for layer, other in zip(heard, together, strict=True):
            torch.testing.assert_close(layer, torch.split(other, LENGTHS)[number], rtol=1e-5, atol=1e-6)


def test_channels_are_normalised_over_each_clip() -> None:
    x = 3 * frames() + 5
    for ours, clip in zip(torch.split(normalised(x, LENGTHS), LENGTHS), torch.split(x, LENGTHS), strict=True):
        torch.testing.assert_close(ours, functional.instance_norm(clip.T[None])[0].T, rtol=1e-4, atol=1e-5)
    assert torch.equal(normalised(x[:1], [1]), torch.zeros(1, 16))


def test_the_spread_is_that_of_frames_in_their_clip() -> None:
    flat = torch.cat([torch.full((7, 16), 1.0), torch.full((12, 16), -1.0)])
    assert float(spread(flat, LENGTHS)) == pytest.approx(1e-3)
    x = frames()
    clips = [float((clip.var(0, unbiased=False) + 1e-6).sqrt().mean()) for clip in torch.split(x, LENGTHS)]
    assert float(spread(x, LENGTHS)) == pytest.approx((7 * clips[0] + 12 * clips[1]) / 19)
    assert float(spread(x[:0], [0])) == 0
