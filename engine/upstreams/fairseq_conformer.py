"""wav2vec 2.0 with Conformer blocks in fairseq's layout, and in the one that S3PRL converts it to.

State 0 is the projected front end, state i comes out of block i, before the last norm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from engine.checkpoint import Layout
from engine.errors import Refused
from engine.nets import conformer, fairseq, wav2vec2
from engine.nets.conformer import Positions
from engine.nets.wav2vec2_conformer import Wav2Vec2Conformer
from engine.upstream import Card, Upstream
from engine.weights import Checkpoint, renamed

BLOCK = "encoder.layers.0.ffn1.w_1.weight"
POSITIONS: dict[str, Positions] = {"rel_pos": "relative", "rope": "rotary"}
# Names of one block in fairseq -> those of transformers, where they differ.
NAMES = [
    (r"\.ffn(\d)\.layer_norm\.", r".ffn\1_layer_norm."),
    (r"\.ffn(\d)\.w_1\.", r".ffn\1.intermediate_dense."),
    (r"\.ffn(\d)\.w_2\.", r".ffn\1.output_dense."),
]


def _is_authors(checkpoint: Checkpoint) -> bool:
    return fairseq.is_authors(checkpoint, BLOCK)


def _is_converted(checkpoint: Checkpoint) -> bool:
    return fairseq.is_converted(checkpoint, BLOCK)


def _shapes(checkpoint: Checkpoint) -> tuple[wav2vec2.Shape, conformer.Shape]:
    """Of the front end, and of the blocks."""
    model, normalise = fairseq.settings(checkpoint)
    positions = model.get("pos_enc_type", "abs")
    if positions not in POSITIONS or model.get("attn_type") != "espnet" or not model.get("layer_norm_first"):
        raise Refused(
            f"'{checkpoint.file}' has Conformer blocks that tell positions by '{positions}', or a norm before them. "
            f"Those of fairseq's wav2vec 2.0 ({', '.join(POSITIONS)}) can be read."
        )
    held = checkpoint.under(fairseq.root(checkpoint, BLOCK))
    heard = fairseq.read_shape({**model, "layer_type": "transformer"}, held, f"'{checkpoint.file}'", normalise=normalise)
    blocks = conformer.Shape(
        dim=heard.dim,
        layers=heard.layers,
        heads=heard.heads,
        inner=heard.inner,
        kernel=int(model.get("depthwise_conv_kernel_size", 31)),
        positions=POSITIONS[positions],
    )
    return heard, blocks


def _describe(checkpoint: Checkpoint) -> Card:
    heard, _ = _shapes(checkpoint)
    given, _ = _weights(checkpoint)
    return replace(
        fairseq.describe(heard, "wav2vec2-Conformer", "A checkpoint of fairseq with Conformer blocks."),
        parameters=sum(tensor.numel() for name, tensor in given.items() if not name.startswith("quantizer.")),
    )


def _build(card: Card, checkpoint: Checkpoint) -> Upstream:
    return Wav2Vec2Conformer(card, *_shapes(checkpoint))


def _weights(checkpoint: Checkpoint) -> tuple[Mapping[str, Tensor], Sequence[str]]:
    beginning = fairseq.root(checkpoint, BLOCK)
    heard, _ = _shapes(checkpoint)
    parts = ("feature_extractor.", "layer_norm.", "post_extract_proj.")
    given, unused = fairseq.read_weights(checkpoint, beginning, heard, parts)
    blocks = {
        name: tensor
        for name, tensor in checkpoint.under(beginning).items()
        if name.startswith("encoder.layers.") and not name.endswith(".rotary_emb.inv_freq")
    }
    left = [name for name in unused if name.removeprefix(beginning) not in blocks]
    return given | conformer.flat(renamed(blocks, [*NAMES, *conformer.NAMES])), left


AUTHOR = Layout(
    name="wav2vec 2.0 with Conformer blocks, as fairseq saves it",
    prefix="author",
    recognises=_is_authors,
    describe=_describe,
    build=_build,
    weights=_weights,
)
CONVERTED = Layout(
    name="wav2vec 2.0 with Conformer blocks, as S3PRL converts it",
    prefix="s3prl",
    recognises=_is_converted,
    describe=_describe,
    build=_build,
    weights=_weights,
)
