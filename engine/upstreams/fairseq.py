"""wav2vec 2.0, HuBERT, data2vec and their kin in fairseq's layout, and in the one that S3PRL converts it to.

State 0 goes into the first block, state i comes out of block i, before any final norm (fairseq's layer results).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from engine.checkpoint import Layout
from engine.errors import Refused
from engine.nets import fairseq
from engine.nets.wav2vec2 import Shape, Wav2Vec2
from engine.upstream import Card, Upstream
from engine.weights import Checkpoint

PRUNED = ("hubert_pruner", "student_hubert")  # of LightHuBERT, which reads the same settings differently
FINE_TUNED = "w2v_model."


def _is_fairseq(checkpoint: Checkpoint) -> bool:
    root = fairseq.root(checkpoint)
    written = fairseq.section(checkpoint, "cfg", "model") or fairseq.section(checkpoint, "args")
    named = fairseq.section(checkpoint, "cfg", "model").get("_name") in PRUNED
    return root.startswith("model.") and bool(written) and not named


def _is_converted(checkpoint: Checkpoint) -> bool:
    return fairseq.root(checkpoint).startswith("model_weight.") and bool(fairseq.section(checkpoint, "model_cfg"))


def _shape(checkpoint: Checkpoint) -> Shape:
    where = f"'{checkpoint.file}'"
    root = fairseq.root(checkpoint)
    model, task = _settings(checkpoint)
    if root.endswith(FINE_TUNED):
        before = model.get("w2v_args")
        if not isinstance(before, Mapping):
            raise Refused(f"{where} was fine-tuned, and nothing in it ('w2v_args') tells the network that it began with.")
        inner = before.get("model")
        model = inner if isinstance(inner, Mapping) else before
    return fairseq.read_shape(model, checkpoint.under(root), where, normalise=bool(task.get("normalize", False)))


def _settings(checkpoint: Checkpoint) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Of the model and of its task; the old layout mixes them."""
    if "model_cfg" in checkpoint.facts:
        return fairseq.section(checkpoint, "model_cfg"), fairseq.section(checkpoint, "task_cfg")
    model = fairseq.section(checkpoint, "cfg", "model")
    if model:
        return model, fairseq.section(checkpoint, "cfg", "task")
    return (fairseq.section(checkpoint, "args"),) * 2


def _describe(checkpoint: Checkpoint) -> Card:
    about = (
        "fine-tuned, without what was added for that" if fairseq.root(checkpoint).endswith(FINE_TUNED) else "as pre-trained"
    )
    return fairseq.describe(_shape(checkpoint), "fairseq", f"A checkpoint of fairseq, {about}.")


def _build(card: Card, checkpoint: Checkpoint) -> Upstream:
    return Wav2Vec2(card, _shape(checkpoint))


def _weights(checkpoint: Checkpoint) -> tuple[Mapping[str, Tensor], Sequence[str]]:
    return fairseq.read_weights(checkpoint, fairseq.root(checkpoint), _shape(checkpoint))


AUTHOR = Layout(
    name="wav2vec 2.0, HuBERT or data2vec, as fairseq saves it",
    prefix="author",
    recognises=_is_fairseq,
    describe=_describe,
    build=_build,
    weights=_weights,
)
CONVERTED = Layout(
    name="wav2vec 2.0, HuBERT or data2vec of fairseq, as S3PRL converts it",
    prefix="s3prl",
    recognises=_is_converted,
    describe=_describe,
    build=_build,
    weights=_weights,
)
