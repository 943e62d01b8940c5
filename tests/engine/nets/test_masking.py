"""Hidden frames: how many, where, and what is put in their place."""

import torch

from engine.nets.masking import alter, spans


def test_the_proportions_hold_over_ten_thousand_draws() -> None:
    torch.manual_seed(0)
    clips, frames = 10_000, 100
    x = torch.arange(1, frames + 1, dtype=torch.float32).expand(clips, frames)[..., None].clone()
    lengths = torch.full((clips,), frames)
    hidden = spans(lengths, 0.15, 7)
    seen = alter(x, hidden, lengths)
    # Two spans of 7 in 100 frames hide 14 of them where they do not overlap; starts are drawn from 94 without repetition.
    overlap = sum((7 - gap) * 2 * (94 - gap) for gap in range(1, 7)) / (94 * 93)
    assert abs(float(hidden.float().sum(1).mean()) - (14 - overlap)) < 0.05
    assert torch.equal(seen[~hidden], x[~hidden])
    zero = (seen[..., 0] == 0).any(1)
    same = (seen == x)[..., 0].all(1)
    shares = [float(zero.float().mean()), float(same.float().mean())]
    assert abs(shares[0] - 0.8) < 0.015 and abs(shares[1] - 0.1) < 0.01


def test_one_die_decides_for_all_hidden_frames_of_a_clip() -> None:
    torch.manual_seed(1)
    x = torch.rand(300, 40, 3) + 1
    lengths = torch.full((300,), 40)
    hidden = spans(lengths, 0.3, 4)
    seen = alter(x, hidden, lengths)
    for clip in range(300):
        zeros = (seen[clip, hidden[clip]] == 0).all(1)
        assert bool(zeros.all()) or not bool(zeros.any())
        # What is not zero is some frame of the same clip.
        if not bool(zeros.any()):
            assert all(bool((x[clip] == frame).all(1).any()) for frame in seen[clip, hidden[clip]])


def test_spans_stay_inside_short_clips_and_every_clip_hides_something() -> None:
    torch.manual_seed(2)
    lengths = torch.tensor([1, 3, 7, 8, 50])
    for _ in range(50):
        hidden = spans(lengths, 0.15, 7)
        assert hidden.shape == (5, 50)
        for clip, length in enumerate(lengths.tolist()):
            assert not bool(hidden[clip, length:].any())
            assert 1 <= int(hidden[clip].sum()) <= length
            runs = hidden[clip].int().diff(prepend=torch.zeros(1, dtype=torch.int)).clamp(min=0).sum()
            assert int(runs) <= max(1, round(length * 0.15 / 7))
