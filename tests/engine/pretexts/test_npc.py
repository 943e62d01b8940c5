"""NPC: no frame is told with a look at itself, padding counts for nothing, and it learns."""

import pytest
import torch
from learning import batch, learnt

from app import workbench
from engine import upstream
from engine.errors import Refused
from engine.pretexts.npc import NPC, Surroundings


def surroundings(**settings: object) -> Surroundings:
    torch.manual_seed(0)
    spec = NPC(**{"width": 16, "codebook": 8, "dropout": 0.0, **settings})  # type: ignore[arg-type]
    made = spec.objective(spec.network(), None)  # type: ignore[arg-type]
    assert isinstance(made, Surroundings)
    return made


@pytest.mark.parametrize("groups", [0, 4])
@pytest.mark.parametrize(("blocks", "kernel", "mask"), [(4, 15, 5), (2, 9, 1), (1, 7, 3)])
def test_a_frame_is_told_without_a_look_at_itself(groups: int, blocks: int, kernel: int, mask: int) -> None:
    """The gradient is exactly zero within the mask, and nowhere else in the window; the window ends where it should."""
    made = surroundings(groups=groups, blocks=blocks, kernel=kernel, mask=mask).eval()
    clip, at = torch.randn(61, 80, requires_grad=True), 30
    guess, _ = made.guess([torch.randn(23, 80), clip])
    guess[23 + at].square().sum().backward()
    assert clip.grad is not None
    seen = (clip.grad != 0).any(dim=1).nonzero()[:, 0] - at
    reach = kernel // 2 + blocks
    assert seen.tolist() == [place for place in range(-reach, reach + 1) if abs(place) > mask // 2]


@torch.no_grad()
def test_a_clip_costs_the_same_alone_and_in_company_once_learnt() -> None:
    made = surroundings().eval()
    clips = [torch.randn(frames, 80) for frames in (30, 11, 22)]
    whole = made(batch(*clips))
    alone = [made(batch(clip, first=number)) for number, clip in enumerate(clips)]
    assert whole.count == sum(clip.numel() for clip in clips)
    assert float(whole.total) == pytest.approx(sum(float(loss.total) for loss in alone), rel=1e-5)


@torch.no_grad()
def test_norms_take_their_statistics_over_frames_of_clips_alone() -> None:
    made = surroundings(blocks=1)
    clips = [torch.randn(frames, 80) + 3 for frames in (30, 11)]
    block = made.network.blocks[0]
    made(batch(*clips))
    before = torch.cat([block.conv(clip.T[None])[0].T for clip in clips])
    torch.testing.assert_close(block.first_norm.running_mean, 0.1 * before.mean(dim=0))
    torch.testing.assert_close(block.first_norm.running_var, 0.9 + 0.1 * before.var(dim=0))


def test_the_gradient_passes_the_codebooks() -> None:
    made = surroundings()
    made(batch(torch.randn(25, 80), torch.randn(18, 80))).total.backward()
    assert all(bool(weight.grad is not None and weight.grad.abs().sum() > 0) for weight in made.parameters())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kernel": 13}, "a mask of 5 frames hides all 13 of the kernel; it takes at least 15"),
        ({"kernel": 16}, "they are odd numbers; these are 16 and 5"),
        ({"width": 30}, "the width 30 is not a multiple of the 4 groups"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(settings: dict[str, int], said: str) -> None:
    with pytest.raises(Refused, match=said):
        workbench.resolve({"run": "npc", **settings})


def test_it_learns_and_is_found_with_its_codes() -> None:
    job, result = learnt("npc", steps=40, validate_every=20, width=32, groups=4, codebook=8, dropout=0.0)
    assert result.facts["last_valid_loss"] < 0.8 * result.facts["first_loss"]
    assert float(result.table[-1]["perplexity"] or 0) > 1.7  # sound and silence at least, in each group
    wave = torch.randn(8000, generator=torch.Generator().manual_seed(0)) * 0.1
    found = upstream.load(f"job:{job.id}")
    assert [state.shape[2] for state in found.encode([wave]).states] == [80, *[32] * 9]
    assert found.tap([wave], "codes")["codes"][0].shape == (48, 4)
