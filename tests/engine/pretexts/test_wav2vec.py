"""wav2vec and bidirectional CPC learn, and are found again."""

from pathlib import Path

import pytest
import torch
from learning import learnt

from engine import upstream
from engine.pretexts.bidirectional_cpc import BidirectionalCpc
from engine.pretexts.wav2vec import Wav2vec

TINY = {"channels": 8, "window": 0, "parts": 1, "warm_up": 0.2, "steps": 10, "ahead": 4, "validate_every": 100}


@pytest.mark.parametrize(("run", "layers", "width"), [("wav2vec", 9, 8), ("bidirectional_cpc", 13, 16)])
def test_it_learns_and_is_found_again(run: str, layers: int, width: int, workspace: Path) -> None:
    job, result = learnt(run, **TINY)
    assert float(str(result.facts["last_valid_loss"])) < 0.93 * float(str(result.facts["first_loss"]))
    card = upstream.find(f"job:{job.id}")
    assert (card.hop, card.dims) == (160, (8, *(width,) * layers))
    model = upstream.load(card.name)
    wave = 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(0))
    assert model.card.taps[4].name == "conv5" and len(model.tap([wave], "conv5")["conv5"][0]) == model.frames(8000)
    together = model.encode([wave, wave[:4000]])
    for state, expected in zip(together.clip(1), model.encode([wave[:4000]]).clip(0), strict=True):
        torch.testing.assert_close(state, expected, atol=1e-5, rtol=1e-5)


def test_the_networks_are_those_of_the_papers() -> None:
    with torch.device("meta"):
        base, large, both = Wav2vec().network(), Wav2vec(size="large").network(), BidirectionalCpc().network()
    assert base.card.layers == 9 and large.card.layers == 12 and both.card.layers == 13
    assert sum(weight.numel() for weight in large.parameters()) == 29_390_848
    assert both.card.dims[-1] == 1024


def test_false_frames_weigh_as_much_as_there_are_unless_balanced() -> None:
    tiny = {"channels": 8, "others": 6}
    for settings, weight in (({}, 6.0), ({"balanced": True}, 1.0)):
        spec = Wav2vec(**tiny, **settings)  # type: ignore[arg-type]
        assert spec.objective(spec.network(), None).balance == weight  # type: ignore[arg-type, attr-defined, union-attr]
