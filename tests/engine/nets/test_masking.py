"""Hidden frames: how many, where, and what is put in their place."""

import math

import torch

from engine.nets.masking import alter, runs, spans


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


def test_runs_begin_with_the_given_chance_at_each_frame_and_may_overlap() -> None:
    generator = torch.Generator().manual_seed(3)
    frames, chance, span, draws = 500, 0.065, 10, 2_000
    hidden = torch.stack([runs(frames, chance, span, generator) for _ in range(draws)])
    # 32.5 beginnings on average among 491 places; a frame is spared where none of the ten before it is a beginning.
    spared = sum(0.5 * math.comb(491 - 10, count) / math.comb(491, count) for count in (32, 33))
    inside = hidden[:, 50:450].float().mean()
    assert abs(float(inside) - (1 - spared)) < 0.003 and abs(float(inside) - 0.49) < 0.01
    assert abs(float(hidden[:, 0].float().mean()) - 32.5 / 491) < 0.02  # the first frame is hidden by one beginning only


def test_runs_leave_something_of_a_short_clip_to_be_seen() -> None:
    generator = torch.Generator().manual_seed(4)
    for frames in (3, 4, 9, 20, 21, 45):
        for _ in range(40):
            hidden = runs(frames, 0.065, 10, generator)
            assert hidden.shape == (frames,) and 1 < int(hidden.sum()) < frames
    assert runs(1, 0.065, 10, generator).tolist() == [True]
