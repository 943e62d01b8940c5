"""What every upstream promises, swept over all that need no download, and over tiny checkpoints of each family that does."""

import gc
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import checkpoints
import pytest
import tiny
import torch
from torch import Tensor, nn

from engine import upstream
from engine.errors import Refused, Unknown
from engine.settings import settings
from engine.upstream import SAMPLE_RATE, Upstream


def built_in() -> list[str]:
    """The upstreams that are usable in an empty workspace."""
    before = os.environ.get("AUSCULT_WORKSPACE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AUSCULT_WORKSPACE"] = folder
        settings.cache_clear()
        names = [card.name for card in upstream.cards() if card.here]
    if before is None:
        del os.environ["AUSCULT_WORKSPACE"]
    else:
        os.environ["AUSCULT_WORKSPACE"] = before
    settings.cache_clear()
    return names


MAKERS = checkpoints.makers()
NAMES = [*built_in(), *MAKERS]


@pytest.fixture(scope="module")
def own_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests of this file: a pickle is read once, not once for each promise."""
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(autouse=True)
def workspace(workspace: Path, own_workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one of this file instead of one for each test."""
    monkeypatch.setenv("AUSCULT_WORKSPACE", str(own_workspace))
    settings.cache_clear()
    return own_workspace


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The name of the upstream that a maker makes, made once."""
    names: dict[str, str] = {}

    def make(kind: str) -> str:
        if kind not in names:
            names[kind] = MAKERS[kind](tmp_path_factory.mktemp("checkpoints") / kind.replace(" ", "-"))
        return names[kind]

    return make


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest, made: Callable[[str], str]) -> Iterator[Upstream]:
    name = request.param
    yield upstream.load(made(name) if name in MAKERS else name)


def waves(*lengths: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [0.2 * torch.randn(length, generator=generator) + 0.05 for length in lengths]


@torch.inference_mode()
def test_a_clip_has_the_same_states_alone_and_in_company(model: Upstream) -> None:
    clips = waves(9_000, model.card.shortest, 30_000, 16_001, model.card.shortest + 1)
    clips[2] *= 3  # a loud neighbour
    together = model.encode(clips)
    for number, clip in enumerate(clips):
        for state, alone in zip(together.clip(number), model.encode([clip]).clip(0), strict=True):
            torch.testing.assert_close(state, alone, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_shapes_are_those_of_the_card_and_lengths_are_exact(model: Upstream) -> None:
    card = model.card
    lengths = [card.shortest, card.shortest + card.hop - 1, card.shortest + card.hop, 16_000, 12_345]
    hidden = model.encode(waves(*lengths))
    assert hidden.lengths.tolist() == [model.frames(samples) for samples in lengths]
    assert hidden.lengths[0] >= 1
    assert len(hidden.states) == card.layers + 1 == len(card.dims)
    for state, dim in zip(hidden.states, card.dims, strict=True):
        assert state.shape == (len(lengths), int(hidden.lengths.max()), dim)
        assert state.dtype == torch.float32
    for number, samples in enumerate(lengths):
        alone = model.encode(waves(*lengths)[number : number + 1])
        assert alone.states[0].shape[1] == model.frames(samples)


def test_gradients_reach_the_sound_and_every_state(model: Upstream) -> None:
    shortest = model.card.shortest
    clip = waves(max(4_000, shortest))[0].requires_grad_()
    if not model.card.differentiable:
        assert not any(state.requires_grad for state in model.encode([clip]).states)
        return
    for state in model.encode([clip, *waves(max(3_000, shortest))]).states:
        (gradient,) = torch.autograd.grad(state[0].square().sum(), clip, retain_graph=True)
        assert torch.isfinite(gradient).all()
        assert gradient.abs().sum() > 0


@torch.inference_mode()
def test_the_same_sound_gives_the_same_bits(model: Upstream) -> None:
    assert not model.training
    first, again = model.encode(waves(9_000, 5_000)), model.encode(waves(9_000, 5_000))
    assert all(torch.equal(one, other) for one, other in zip(first.states, again.states, strict=True))


@torch.inference_mode()
def test_the_shortest_legal_clip_works_and_one_sample_less_is_refused(model: Upstream) -> None:
    shortest = model.card.shortest
    assert model.encode(waves(shortest)).lengths.tolist() == [model.frames(shortest)]
    with pytest.raises(Refused, match=f"Clip 1 has {shortest - 1} samples; .* needs at least {shortest} samples"):
        model.encode(waves(16_000, shortest - 1))


@torch.inference_mode()
def test_silence_and_extremes_are_finite(model: Upstream) -> None:
    clips = [
        torch.zeros(5_000),
        torch.ones(5_000),
        1e-20 * waves(5_000)[0],
        torch.zeros(model.card.shortest),
        waves(5_000)[0].sign(),
    ]
    for state in model.encode(clips).states:
        assert torch.isfinite(state).all()


def hooks(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def test_nothing_stays_behind_after_an_error(model: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[nn.Module] = []
    watch = nn.modules.module.register_module_forward_hook(lambda module, given, out: ran.append(module))
    expected = model.encode(waves(6_000)).states[-1].detach()
    watch.remove()
    before = hooks(model)
    parts = set(model.modules())
    last = [part for part in ran if part in parts][-2:][0]  # before the upstream itself, where anything is
    with monkeypatch.context() as broken:

        def fail(*given: object, **named: object) -> None:
            raise RuntimeError("Broken on purpose.")

        broken.setattr(last, "forward", fail)
        with pytest.raises(RuntimeError, match="on purpose"):
            model.encode(waves(6_000))
    assert hooks(model) == before
    torch.testing.assert_close(model.encode(waves(6_000)).states[-1].detach(), expected)


@torch.inference_mode()
def test_attention_maps_are_distributions_over_the_clip(model: Upstream) -> None:
    if not model.card.attention:
        with pytest.raises(Refused, match="no attention maps"):
            model.encode(waves(8_000), attention=True)
        return
    hidden = model.encode(waves(8_000, 3_000), attention=True)
    assert hidden.attention is not None
    assert len(hidden.attention) == model.card.layers
    for maps in hidden.attention:
        for clip, frames in enumerate(hidden.lengths.tolist()):
            torch.testing.assert_close(maps[clip, :, :frames, :frames].sum(dim=-1), torch.ones(maps.shape[1], frames))
            assert maps[clip, :, :frames, frames:].abs().sum() == 0
    for with_maps, without in zip(hidden.states, model.encode(waves(8_000, 3_000)).states, strict=True):
        torch.testing.assert_close(with_maps, without, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_taps_are_those_of_the_card_and_of_the_clip_alone(model: Upstream) -> None:
    taps = model.card.taps
    assert len({tap.name for tap in taps}) == len(taps)
    if not taps:
        return
    clips = waves(9_000, max(model.card.shortest, 4_000), 16_001)
    together = model.tap(clips, *(tap.name for tap in taps))
    for tap in taps:
        frames = [len(found) for found in together[tap.name]]
        assert abs(frames[2] * tap.hop / model.card.sample_rate - 1) < 0.06
        for clip, found in zip(clips, together[tap.name], strict=True):
            assert found.shape[1] == tap.dim
            (alone,) = model.tap([clip], tap.name)[tap.name]
            if tap.codes:
                assert torch.equal(found, alone) and not found.is_floating_point()
                assert int(found.min()) >= 0 and int(found.max()) < tap.entries
            else:
                torch.testing.assert_close(found, alone, atol=1e-4, rtol=1e-4)
    with pytest.raises(Unknown, match="no tap of"):
        model.tap(clips, "conv99")


@torch.inference_mode()
def test_the_untrained_twin_is_the_same_but_for_its_weights(model: Upstream) -> None:
    name = f"random:{model.card.name}"
    if model.card.untrained is None:
        with pytest.raises(Refused, match="no untrained twin"):
            upstream.find(name)
        return
    twin, again, other = (upstream.find(each).open(upstream.find(each)).eval() for each in (name, name, f"{name}#1"))
    clip = waves(9_000)[0]
    states = twin.encode([clip]).clip(0)
    trained = model.encode([clip]).clip(0)
    assert [state.shape for state in states] == [state.shape for state in trained]
    assert all(torch.isfinite(state).all() for state in states)
    assert all(torch.equal(one, two) for one, two in zip(states, again.encode([clip]).clip(0), strict=True))
    assert not torch.equal(states[-1], other.encode([clip]).clip(0)[-1])
    assert not torch.equal(states[-1], trained[-1])


@torch.inference_mode()
def test_bfloat16_is_near(model: Upstream) -> None:
    exact = model.encode(waves(16_000, 7_000))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model.encode(waves(16_000, 7_000))
    for number in range(2):
        for state, expected in zip(low.clip(number), exact.clip(number), strict=True):
            assert state.dtype == torch.float32
            # Few numbers are summed up here, so the roundings of processors without such products differ; at the size of
            # real models the change was under 1.1e-2 (bench/README.md).
            assert torch.linalg.norm(state - expected) <= 4e-2 * torch.linalg.norm(expected)


@torch.inference_mode()
def test_a_clip_longer_than_a_window_has_every_frame_whatever_shares_its_batch(model: Upstream) -> None:
    long, short = waves(int(2.3 * (model.card.window or 1.5) * SAMPLE_RATE) + 77, model.card.shortest)
    states = model.encode([long]).clip(0)
    together = model.encode([short, long]).clip(1)
    for state, beside in zip(states, together, strict=True):
        assert len(state) == model.frames(len(long)) and torch.isfinite(state).all()
        torch.testing.assert_close(state, beside, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["fbank", "mfcc", "spectrogram", "mel", "one block"])
@torch.inference_mode()
def test_ten_minutes_at_once_in_bounded_memory(name: str, tmp_path: Path) -> None:
    if name == "one block":
        tiny.checkpoint(tmp_path, "wav2vec2-one-block")
    model = upstream.load(f"hf:{tmp_path}" if name == "one block" else name)
    clip = waves(600 * 16_000)[0]
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    hidden = model.encode([clip])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert hidden.lengths.tolist() == [model.frames(clip.numel())]
    assert torch.isfinite(hidden.states[-1]).all()
    assert grown < 1.5e9
