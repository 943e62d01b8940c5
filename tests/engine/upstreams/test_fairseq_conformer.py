"""wav2vec 2.0 with Conformer blocks in fairseq's layout: the same states as fairseq."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoints import fairseq_conformer as made
from fairseq_weights import compare, held, wave

from engine import upstream
from engine.checkpoint import recognise
from engine.errors import Refused
from engine.upstreams.fairseq_conformer import AUTHOR, CONVERTED


@pytest.mark.parametrize(("case", "make"), [("relative", made.relative), ("rotary", made.rotary)])
@torch.inference_mode()
def test_every_state_is_that_of_the_reference(case: str, make: Callable[[Path], str], tmp_path: Path) -> None:
    name = make(tmp_path)
    assert recognise(Path(name.partition(":")[2])) == name
    model = upstream.load(name)
    compare(model.encode([wave()]).clip(0), case, "fairseq_conformer")
    assert model.loaded is not None and "model.encoder.pos_conv.0.bias" in model.loaded.unused


def test_the_layout_of_s3prl_is_told_apart() -> None:
    content = made.content(pos_enc_type="rope")
    converted = held(
        {"model_cfg": content["cfg"]["model"], "task_cfg": content["cfg"]["task"], "model_weight": content["model"]}
    )
    assert CONVERTED.recognises(converted) and not AUTHOR.recognises(converted)
    assert CONVERTED.describe(converted).layers == 2


@pytest.mark.parametrize("settings", [{"attn_type": ""}, {"layer_norm_first": False}])
def test_blocks_of_another_kind_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(Refused, match="has Conformer blocks that tell positions by 'rope', or a norm before them"):
        AUTHOR.describe(held(made.content(pos_enc_type="rope", **settings)))
