"""Multi-target APC: which passages are told again from which frames, and how both losses add up."""

import pytest
import torch
from learning import batch, learnt

from app import workbench
from engine.errors import Refused
from engine.pretexts.multi_target_apc import Memory, MultiTargetApc


def memory(**settings: object) -> Memory:
    torch.manual_seed(0)
    spec = MultiTargetApc(**{"layers": 2, "width": 16, "dropout": 0.0, **settings})  # type: ignore[arg-type]
    made = spec.objective(spec.network(), None)  # type: ignore[arg-type]
    assert isinstance(made, Memory)
    return made


def test_a_passage_by_hand() -> None:
    made = memory(back=4, passage=3)
    clips = [torch.arange(float(frames))[:, None].expand(-1, 80) for frames in (12, 9)]
    given, target = made.passages(clips, [torch.tensor([5, 11]), torch.tensor([8])])
    assert target[..., 0].tolist() == [[1, 2, 3], [7, 8, 9], [4, 5, 6]]
    assert given[..., 0].tolist() == [[0, 1, 2], [6, 7, 8], [3, 4, 5]]


def test_frames_are_drawn_with_their_share_where_a_whole_passage_lies_behind() -> None:
    made = memory(back=7, share=0.15)
    drawn = torch.zeros(50)
    for seed in range(2000):
        drawn[made.anchors(50, torch.Generator().manual_seed(seed))] += 1
    assert bool((drawn[:8] == 0).all())
    torch.testing.assert_close(drawn[8:] / 2000, torch.full((42,), 0.15), atol=0.032, rtol=0)  # four deviations
    assert len(made.anchors(8, torch.Generator())) == 0


@torch.no_grad()
def test_the_loss_is_the_sum_over_all_that_is_told() -> None:
    made = memory(weight=0.1).eval()
    clips = [torch.randn(frames, 80) for frames in (40, 6, 25)]
    whole = made(batch(*clips))
    by_hand = past = count = 0.0
    for index, clip in enumerate(clips):
        last = made.last([clip])[0]
        by_hand += float((made.head(last[:-5]) - clip[5:]).abs().sum())
        for at in made.anchors(len(clip), batch(*clips).generators()[index]).tolist():
            guess = made.memory_head(made.memory(clip[None, at - 8 : at - 1], last[None, at : at + 1])[0][0])
            past += float((guess - clip[at - 7 : at]).abs().sum())
            count += guess.numel()
    assert count > 0
    assert float(whole.total) == pytest.approx(by_hand + 0.1 * past, rel=1e-5)
    assert float(whole.shown["past"]) == pytest.approx(past / count, rel=1e-5)
    alone = [made(batch(clip, first=number)) for number, clip in enumerate(clips)]
    assert float(whole.total) == pytest.approx(sum(float(loss.total) for loss in alone), rel=1e-5)


def test_a_passage_that_is_not_over_is_refused() -> None:
    with pytest.raises(Refused, match="began 4 frames before is not over"):
        workbench.resolve({"run": "multi_target_apc", "back": 4, "passage": 5})


def test_it_learns() -> None:
    _, result = learnt("multi_target_apc", steps=30, validate_every=15, layers=2, width=16, dropout=0.0)
    first, last = result.table[0], result.table[-1]
    assert all(float(last[name] or 0) < 0.85 * float(first[name] or 0) for name in ("loss", "future", "past"))
