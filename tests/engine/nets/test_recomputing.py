"""Blocks that are computed again on the way back have the gradients of those that are kept, in less memory."""

from typing import Any

import pytest
import torch
from torch import Tensor

from engine.nets.transformer import Transformer
from engine.nets.wav2vec2 import Shape, Wav2Vec2
from engine.upstream import Card


def transformer() -> tuple[Any, Any]:
    network = Transformer(8, width=32, blocks=4, heads=2, inner=64, dropout=0.2)
    clips = torch.randn(2, 50, 8)
    return network, lambda: network(clips, torch.tensor([50, 30]))[0][-1]


def clips() -> tuple[Any, Any]:
    network = Transformer(8, width=32, blocks=4, heads=2, inner=64, dropout=0.2)
    frames = torch.randn(80, 32)
    return network, lambda: network.encode_clips(frames, [50, 30])[-1]


def waveform() -> tuple[Any, Any]:
    shape = Shape(
        dim=32,
        layers=4,
        heads=2,
        inner=64,
        convolutions=((8, 10, 5), (8, 8, 4)),
        position_kernel=8,
        dropout=0.2,
        layer_drop=0.2,
    )
    network = Wav2Vec2(Card("tiny", "wav2vec 2.0", 4, (32,) * 5, 20, 90), shape)
    waves = [torch.randn(1600), torch.randn(1000)]
    return network, lambda: network.encode(waves).states[-1]


def learnt(make: Any, recompute: bool) -> tuple[list[Tensor | None], int]:
    """The gradients, and the bytes that the way back has kept."""
    torch.manual_seed(0)
    network, run = make()
    network.recompute = recompute
    kept: set[int] = set()
    total = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal total
        if tensor.untyped_storage().data_ptr() not in kept:
            kept.add(tensor.untyped_storage().data_ptr())
            total += tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = run().square().sum()
    on_the_way = total
    loss.backward()
    return [weight.grad for weight in network.parameters()], on_the_way


@pytest.mark.parametrize("make", [transformer, clips, waveform])
def test_gradients_are_the_same_and_less_is_kept(make: Any) -> None:
    (plain, whole), (again, spared) = learnt(make, False), learnt(make, True)
    assert sum(one is not None for one in plain) > 20
    for one, other in zip(plain, again, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert spared < 0.6 * whole


def test_without_gradients_nothing_is_done_twice() -> None:
    network, run = transformer()
    network.recompute = True
    seen = []
    network.blocks[0].register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad():
        run()
    assert seen == [1]
