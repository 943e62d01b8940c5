import pytest
import torch
from torch import Tensor

from engine.nets.windows import stitched


def blocks(wav: Tensor) -> list[Tensor]:
    """Frames of 10 samples every 5: the mean of each, and the place of its first sample."""
    frames = wav.unfold(0, 10, 5)
    return [frames.mean(dim=1, keepdim=True), frames[:, :1]]


@pytest.mark.parametrize("samples", [100, 101, 105, 110, 163, 164, 165, 166, 500, 1004])
def test_what_hears_less_than_half_the_overlap_gives_what_the_whole_gives(samples: int) -> None:
    wav = torch.arange(float(samples))
    for whole, put in zip(blocks(wav), stitched(wav, 100, 40, 5, blocks), strict=True):
        assert torch.equal(whole, put)


def test_a_window_is_never_longer_than_allowed_and_a_short_clip_goes_whole() -> None:
    seen: list[int] = []

    def watched(wav: Tensor) -> list[Tensor]:
        seen.append(len(wav))
        return blocks(wav)

    stitched(torch.zeros(345), 100, 40, 5, watched)
    assert max(seen) == 100 and len(seen) == 6
    seen.clear()
    stitched(torch.zeros(100), 100, 40, 5, watched)
    assert seen == [100]
