"""TERA: the three ways to alter a clip, by hand and by count."""

import pytest
import torch

from app import workbench
from engine.errors import Refused
from engine.pretexts.tera import Altered, Tera

SIZES = {"blocks": 1, "width": 16, "heads": 2, "inner": 32, "dropout": 0.0}


def altered(**settings: object) -> Altered:
    spec = Tera(**{**SIZES, **settings})  # type: ignore[arg-type]
    made = spec.objective(spec.network(), None)  # type: ignore[arg-type]
    assert isinstance(made, Altered)
    return made


def test_a_clip_by_hand() -> None:
    """Two frames are hidden and a band of channels: the loss looks at these frames whole and at the band of all frames."""
    made = altered(band=0.05)  # up to 4 of the 80 channels
    clip = torch.rand(6, 80) + 1
    hidden = torch.tensor([False, True, True, False, False, False])
    for seed in range(200):
        seen, counted = made.altered(clip, hidden, torch.Generator().manual_seed(seed))
        band = counted[0]  # of a frame that is not hidden
        if not bool((seen[1] == 0).all()) or not bool(band.any()):
            continue
        first = int(band.int().argmax())
        width = int(band.sum())
        by_hand = torch.zeros(6, 80, dtype=torch.bool)
        by_hand[1:3] = True
        by_hand[:, first : first + width] = True
        assert torch.equal(counted, by_hand) and 1 <= width <= 4
        assert torch.equal(seen, clip.masked_fill(by_hand, 0))
        return
    raise AssertionError("no draw hid both")


def test_proportions_of_each_way() -> None:
    made = altered(noise=0.15)
    clip = torch.rand(60, 80) + 1
    generator = torch.Generator().manual_seed(0)
    draws = 3000
    zero = other = same = noisy = 0
    widths = torch.zeros(17)
    for _ in range(draws):
        hidden = made.hidden(60, generator)
        assert 1 <= int(hidden.sum()) <= 7  # round(60 * 0.15 / 7) is one run
        seen, counted = made.altered(clip, hidden, generator)
        band = counted[~hidden][0]
        widths[int(band.sum())] += 1
        free = ~band
        apart = (seen - clip)[~hidden][:, free]
        if bool((apart != 0).any()):
            noisy += 1
            assert 0.19 < float(apart.std()) < 0.21
            continue
        rows = seen[hidden][:, free]
        zero += bool((rows == 0).all())
        same += bool(torch.equal(rows, clip[hidden][:, free]))
        if not bool((rows == 0).any()) and not torch.equal(rows, clip[hidden][:, free]):
            other += 1
            # Frames from one other place, in a row.
            start = int((clip[:, free] == rows[0]).all(1).int().argmax())
            assert torch.equal(rows, clip.roll(-start, 0)[: len(rows)][:, free])
    clean = draws - noisy
    assert abs(zero / clean - 0.8) < 0.03 and abs(other / clean - 0.1) < 0.02 and abs(same / clean - 0.1) < 0.02
    assert abs(noisy / draws - 0.15) < 0.02
    assert torch.allclose(widths / draws, torch.full((17,), 1 / 17), atol=0.02)  # 0 ... 16 of 80 channels, alike


@pytest.mark.parametrize(
    ("settings", "frames", "channels"),
    [
        ({"band": 0}, True, False),
        ({"share": 0}, False, True),
        ({"share": 0, "band": 0, "noise": 1}, False, False),
    ],
)
def test_any_of_the_ways_can_be_left_out(settings: dict[str, float], frames: bool, channels: bool) -> None:
    made = altered(**settings)
    clip = torch.rand(40, 80) + 1
    generator = torch.Generator().manual_seed(0)
    any_band = False
    for _ in range(50):
        hidden = made.hidden(40, generator)
        assert bool(hidden.any()) == frames
        seen, counted = made.altered(clip, hidden, generator)
        if not frames and not channels:
            assert bool(counted.all()) and 0.18 < float((seen - clip).std()) < 0.22  # noise alone: all of it counts
            continue
        band = counted[~hidden][0]
        any_band |= bool(band.any())
        assert torch.equal(counted, (hidden[:, None] & torch.tensor(frames)) | band)
    assert any_band == channels


def test_stacked_frames_lose_the_same_band() -> None:
    made = altered(reduce=2, share=0)
    clip = torch.rand(20, 160) + 1
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        seen, counted = made.altered(clip, made.hidden(20, generator), generator)
        assert torch.equal(counted[:, :80], counted[:, 80:]) and int(counted[0].sum()) <= 32
        assert torch.equal(seen == 0, counted)


def test_altering_nothing_is_refused() -> None:
    with pytest.raises(Refused, match="nothing is altered"):
        workbench.resolve({"run": "tera", "share": 0, "band": 0})
