"""Hidden frames: how many, where, and what is put in their place."""

import torch

from engine.nets.masking import alter, spans


def test_the_proportions_hold_over_ten_thousand_draws() -> None:
    generator = torch.Generator().manual_seed(0)
    clips, frames = 10_000, 100
    x = torch.arange(1, frames + 1, dtype=torch.float32)[:, None]
    hidden = [spans(frames, 0.15, 7, generator) for _ in range(clips)]
    seen = torch.stack([alter(x, each, generator) for each in hidden])
    together = torch.stack(hidden)
    # Two spans of 7 in 100 frames hide 14 of them where they do not overlap; starts are drawn from 94 without repetition.
    overlap = sum((7 - gap) * 2 * (94 - gap) for gap in range(1, 7)) / (94 * 93)
    assert abs(float(together.float().sum(1).mean()) - (14 - overlap)) < 0.05
    assert torch.equal(seen[~together], x.expand(clips, frames, 1)[~together])
    zero = (seen[..., 0] == 0).any(1)
    same = (seen == x)[..., 0].all(1)
    assert abs(float(zero.float().mean()) - 0.8) < 0.015 and abs(float(same.float().mean()) - 0.1) < 0.01


def test_one_die_decides_for_all_hidden_frames_of_a_clip() -> None:
    generator = torch.Generator().manual_seed(1)
    for x in torch.rand(300, 40, 3, generator=generator) + 1:
        hidden = spans(40, 0.3, 4, generator)
        seen = alter(x, hidden, generator)
        zeros = (seen[hidden] == 0).all(1)
        assert bool(zeros.all()) or not bool(zeros.any())
        # What is not zero is some frame of the same clip.
        if not bool(zeros.any()):
            assert all(bool((x == frame).all(1).any()) for frame in seen[hidden])


def test_spans_stay_inside_short_clips_and_every_clip_hides_something() -> None:
    generator = torch.Generator().manual_seed(2)
    for frames in (1, 3, 7, 8, 50):
        for _ in range(50):
            hidden = spans(frames, 0.15, 7, generator)
            assert hidden.shape == (frames,) and 1 <= int(hidden.sum()) <= frames
            runs = hidden.int().diff(prepend=torch.zeros(1, dtype=torch.int)).clamp(min=0).sum()
            assert int(runs) <= max(1, round(frames * 0.15 / 7))
