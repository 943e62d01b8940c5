"""WavLM and UniSpeech-SAT as Microsoft saves them: fairseq's names, and the settings in one flat list."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from engine.checkpoint import Layout
from engine.errors import Refused
from engine.nets import fairseq
from engine.nets.wav2vec2 import Shape, Wav2Vec2
from engine.upstream import Card, Upstream
from engine.weights import Checkpoint

ROOT = "model."


def _is_microsoft(checkpoint: Checkpoint) -> bool:
    return fairseq.root(checkpoint) == ROOT and "encoder_layers" in fairseq.section(checkpoint, "cfg")


def _shape(checkpoint: Checkpoint) -> Shape:
    settings = fairseq.section(checkpoint, "cfg")
    relative, gated = (bool(settings.get(name, False)) for name in ("relative_position_embedding", "gru_rel_pos"))
    if relative != gated:
        raise Refused(f"'{checkpoint.file}' has relative positions without a gate, or a gate without them; WavLM has both.")
    normalise = bool(settings.get("normalize", False))
    where = f"'{checkpoint.file}'"
    return fairseq.read_shape(settings, checkpoint.under(ROOT), where, normalise=normalise, relative=relative)


def _describe(checkpoint: Checkpoint) -> Card:
    shape = _shape(checkpoint)
    kind = "WavLM" if shape.buckets else "UniSpeech-SAT"
    return fairseq.describe(shape, "microsoft", f"A checkpoint of Microsoft in the architecture of {kind}.")


def _build(card: Card, checkpoint: Checkpoint) -> Upstream:
    return Wav2Vec2(card, _shape(checkpoint))


def _weights(checkpoint: Checkpoint) -> tuple[Mapping[str, Tensor], Sequence[str]]:
    return fairseq.read_weights(checkpoint, ROOT, _shape(checkpoint))


LAYOUT = Layout(
    name="WavLM or UniSpeech-SAT, as Microsoft saves it",
    prefix="author",
    recognises=_is_microsoft,
    describe=_describe,
    build=_build,
    weights=_weights,
)
