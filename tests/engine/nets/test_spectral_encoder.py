"""The spectral encoder: each clip by itself whatever is beside it, long clips in parts, states that are what they say."""

import pytest
import torch

from engine.errors import Refused
from engine.nets.spectral_encoder import Shape, SpectralEncoder
from engine.upstream import Card


@pytest.fixture(params=[0, 9], ids=["plain", "nearby"])
def encoder(request: pytest.FixtureRequest) -> SpectralEncoder:
    torch.manual_seed(0)
    shape = Shape("mel", reduce=2, width=16, blocks=3, heads=2, inner=32, nearby=request.param)
    card = Card("tiny", "Tiny", len(shape.dims) - 1, shape.dims, shape.hop, shape.shortest, attention=True)
    return SpectralEncoder(card, shape).eval()


def waves(*samples: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count, generator=generator) * 0.1 for count in samples]


@pytest.mark.parametrize("samples", [361, 519, 520, 8000, 16001])
def test_frames_are_exact(encoder: SpectralEncoder, samples: int) -> None:
    hidden = encoder(waves(samples))
    assert hidden.states[0].shape[1] == int(hidden.lengths[0]) == encoder.frames(samples) == (1 + samples // 160) // 2
    assert encoder.card.shortest <= 361 and encoder.frames(encoder.card.shortest) == 1


def test_a_clip_is_the_same_alone_and_beside_others(encoder: SpectralEncoder) -> None:
    clips = waves(5000, 16000, 9000)
    together = encoder(clips, attention=True)
    for index, clip in enumerate(clips):
        alone = encoder([clip], attention=True)
        for layer in range(4):
            assert torch.allclose(together.clip(index)[layer], alone.clip(0)[layer], atol=1e-5)
        assert together.attention is not None and alone.attention is not None
        frames = int(alone.lengths[0])
        assert torch.allclose(together.attention[0][index, :, :frames, :frames], alone.attention[0][0], atol=1e-5)


def test_maps_are_those_that_are_used(encoder: SpectralEncoder) -> None:
    clips = waves(8000)
    plain, with_maps = encoder(clips), encoder(clips, attention=True)
    assert torch.allclose(plain.states[-1], with_maps.states[-1], atol=1e-5)
    assert with_maps.attention is not None and len(with_maps.attention) == 3
    assert torch.allclose(with_maps.attention[1].sum(-1), torch.ones(()), atol=1e-5)


def test_a_layer_is_the_output_of_its_block(encoder: SpectralEncoder) -> None:
    states = encoder(waves(8000)).states
    again, _ = encoder.transformer.blocks[1](states[1], None, False)
    assert torch.allclose(again, states[2], atol=1e-6)


def test_long_clips_are_cut_and_short_ones_beside_them_are_not_touched(encoder: SpectralEncoder) -> None:
    encoder.longest = 30
    long, short = waves(16000, 6000)
    hidden = encoder([long, short])
    encoder.longest = 3000
    alone = encoder([short])
    assert torch.allclose(hidden.clip(1)[-1], alone.clip(0)[-1], atol=1e-5)
    assert len(hidden.clip(0)[-1]) == encoder.frames(16000)
    first = encoder.contextual(encoder.projected(encoder.local([long])[0][:25]), [25])[-1]
    assert torch.allclose(hidden.clip(0)[-1][:25], first, atol=1e-5)  # 50 frames are cut into 25 and 25


def test_maps_of_a_clip_that_is_cut_are_refused(encoder: SpectralEncoder) -> None:
    encoder.longest = 30
    with pytest.raises(Refused, match="up to 1 second"):
        encoder(waves(32000), attention=True)


def test_in_two_parts_it_gives_the_same_states(encoder: SpectralEncoder) -> None:
    clips = waves(5000, 16000, 9000)
    whole = encoder(clips)
    local = encoder.local(clips)
    lengths = [len(clip) for clip in local]
    states = encoder.contextual(encoder.projected(torch.cat(local)), lengths)
    for layer, state in enumerate(states):
        for index, clip in enumerate(torch.split(state, lengths)):
            assert torch.allclose(clip, whole.clip(index)[layer], atol=1e-5)


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_last_state_of_some_frames_is_what_it_is_among_all(norm_first: bool) -> None:
    torch.manual_seed(0)
    shape = Shape("mel", reduce=2, width=16, blocks=3, heads=2, inner=32, norm_first=norm_first)
    network = SpectralEncoder(Card("tiny", "Tiny", 3, shape.dims, shape.hop, shape.shortest), shape).eval()
    lengths = [9, 14, 6]
    x = torch.randn(sum(lengths), 16)
    wanted = torch.zeros(sum(lengths), dtype=torch.bool)
    wanted[[0, 3, 4, 10, 22]] = True  # of the last clip none
    among_all = network.contextual(x, lengths)[-1][wanted]
    alone = network.last(x, lengths, wanted)
    assert alone.shape == (5, 16) and torch.allclose(alone, among_all, atol=1e-5)
    weights = [weight for name, weight in network.named_parameters() if "project" not in name]
    for one, other in zip(
        torch.autograd.grad(among_all.square().sum(), weights),
        torch.autograd.grad(alone.square().sum(), weights),
        strict=True,
    ):
        assert torch.allclose(one, other, atol=1e-4)


@torch.no_grad()
def test_attention_that_drops_keeps_what_it_gives_on_average(encoder: SpectralEncoder) -> None:
    attention = encoder.transformer.blocks[0].attention
    torch.manual_seed(0)
    x = torch.randn(12, 16)
    still = attention.of_clips(x, [12], None)
    attention.train()
    attention.dropout = 0.2
    drawn = torch.stack([attention.of_clips(x, [12], None) for _ in range(2000)])
    assert float(drawn.std(0).max()) > 1e-4
    assert torch.allclose(drawn.mean(0), still, atol=5 * float(drawn.std(0).max()) / 2000**0.5)


@torch.no_grad()
def test_in_two_parts_it_is_the_whole(encoder: SpectralEncoder) -> None:
    clips = waves(8000, 3000, 12_000)
    local = encoder.local(clips)
    lengths = [len(each) for each in local]
    hidden = encoder(clips)
    for layer, states in enumerate(encoder.contextual(encoder.projected(torch.cat(local)), lengths)):
        for index, state in enumerate(states.split(lengths)):
            assert torch.allclose(state, hidden.clip(index)[layer], atol=1e-5)


@torch.no_grad()
def test_frames_nearby_are_those_around_a_frame() -> None:
    torch.manual_seed(0)
    shape = Shape("mel", reduce=1, width=16, blocks=1, heads=2, inner=32, nearby=5)
    encoder = SpectralEncoder(Card("tiny", "Tiny", 1, shape.dims, shape.hop, shape.shortest), shape).eval()
    first = torch.randn(30, 16)
    second = first.clone()
    second[12] += 1
    changed = [encoder.contextual(each, [20, 10])[0] for each in (first, second)]
    assert (changed[0] != changed[1]).any(1).nonzero()[:, 0].tolist() == [10, 11, 12, 13, 14]
    second = first.clone()
    second[20] += 1  # the next clip begins here
    assert (changed[0] != encoder.contextual(second, [20, 10])[0]).any(1).nonzero()[:, 0].tolist() == [20, 21, 22]
