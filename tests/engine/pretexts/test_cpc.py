"""CPC and the modified one learn on a waveform and on features, and are found again with the states they had."""

from pathlib import Path

import pytest
import torch
from learning import learnt

from app import workbench
from engine import upstream
from engine.errors import Refused
from engine.pretexts.cpc import Cpc
from engine.pretexts.modified_cpc import ModifiedCpc

TINY = {"front": "features", "channels": 24, "width": 32, "window": 0, "source": "clip", "others": 15, "validate_every": 100}


@pytest.mark.parametrize(
    ("run", "settings", "layers", "hop"),
    [
        ("cpc", {"steps": 24}, 1, 320),
        ("modified_cpc", {"predictor": "LSTM", "layers": 2, "reduce": 1, "steps": 12}, 2, 160),
    ],
)
def test_it_learns_and_is_found_again(run: str, settings: dict[str, object], layers: int, hop: int, workspace: Path) -> None:
    job, result = learnt(run, **TINY, **settings)
    assert float(str(result.facts["last_valid_loss"])) < 0.95 * float(str(result.facts["first_loss"]))
    assert float(str(result.table[-1]["accuracy"])) > 1.2 / 16
    card = upstream.find(f"job:{job.id}")
    assert (card.layers, card.hop, card.dims) == (layers, hop, (24, *(32,) * layers))
    wave = 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(0))
    found = upstream.load(card.name).encode([wave, wave[:4000]])
    alone = upstream.load(card.name).encode([wave[:4000]])
    assert int(found.lengths[0]) == (1 + 8000 // 160) // (hop // 160)
    for state, expected in zip(found.clip(1), alone.clip(0), strict=True):
        torch.testing.assert_close(state, expected, atol=1e-5, rtol=1e-5)


def test_the_networks_are_those_of_the_papers() -> None:
    first, modified = Cpc().network(), ModifiedCpc().network()
    assert first.card.dims == (512, 256) and first.card.hop == 160 and isinstance(first.levels[0], torch.nn.GRU)
    assert modified.card.dims == (256, 256) and isinstance(modified.levels[0], torch.nn.LSTM)
    assert sum(weight.numel() for weight in modified.parameters()) == 1_843_456
    published = workbench.resolve({"run": "modified_cpc"})
    objective = published.objective(modified, None)  # type: ignore[attr-defined]
    assert objective.window == 20_480 and objective.others == 128 and objective.ahead == 12


@torch.no_grad()
@pytest.mark.parametrize("backwards", [False, True])
def test_clips_side_by_side_have_the_contexts_they_have_alone(backwards: bool) -> None:
    spec = ModifiedCpc(front="features", channels=8, width=8)  # type: ignore[arg-type]
    network = spec.network().eval()
    object.__setattr__(network.shape, "backwards", backwards)
    clips = [torch.randn(frames, 8, generator=torch.Generator().manual_seed(frames)) for frames in (9, 30, 17)]
    for clip, context in zip(clips, network.context(clips), strict=True):
        torch.testing.assert_close(context, network.context([clip])[0], atol=1e-6, rtol=1e-5)
        if backwards:
            torch.testing.assert_close(context, network.levels[0](clip.flip(0)[None])[0][0].flip(0))


def test_a_width_that_the_heads_do_not_divide_is_said() -> None:
    with pytest.raises(Refused, match="20 is not a multiple of the 8 heads"):
        workbench.resolve({"run": "modified_cpc", "width": 20})
    workbench.resolve({"run": "modified_cpc", "width": 20, "predictor": "LSTM"})
