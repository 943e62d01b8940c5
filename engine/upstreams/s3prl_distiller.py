"""DistilHuBERT as S3PRL's Distiller saves it: two blocks of HuBERT's kind that learnt to guess the layers of a larger one.

S3PRL's list begins with the projected features before they know their positions, and ends with the guesses at the
teacher's layers. Here state 0 is the input of the first block, as everywhere, and the guesses are left out; between them
the two lists are the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor

from engine.checkpoint import Layout
from engine.errors import Refused
from engine.nets.conv_strings import parse
from engine.nets.wav2vec2 import Shape, Wav2Vec2, standard
from engine.upstream import Card
from engine.weights import Checkpoint, renamed

# Names of fairseq, which the Distiller took over -> those that transformers has for the same.
NAMES = [
    (r"^feature_extractor\.conv_layers\.(\d+)\.0\.", r"feature_extractor.conv_layers.\1.conv."),
    (r"^feature_extractor\.conv_layers\.(\d+)\.2\.(?:1\.)?", r"feature_extractor.conv_layers.\1.layer_norm."),
    (r"^post_extract_proj\.", "feature_projection.projection."),
    (r"^encoder\.pos_conv\.0\.", "encoder.pos_conv_embed.conv."),
    (r"\.self_attn_layer_norm\.", ".layer_norm."),
    (r"\.self_attn\.", ".attention."),
    (r"\.fc1\.", ".feed_forward.intermediate_dense."),
    (r"\.fc2\.", ".feed_forward.output_dense."),
]
CONVOLUTIONS = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"
MEGABYTE = 1_000_000


def recognises(checkpoint: Checkpoint) -> bool:
    return "Distiller.feature_extractor.conv_layers.0.0.weight" in checkpoint.tensors


def describe(checkpoint: Checkpoint) -> Card:
    given, _ = weights(checkpoint)
    return _card(read_shape(checkpoint), parameters=sum(tensor.numel() for tensor in given.values()))


def build(card: Card, checkpoint: Checkpoint) -> Wav2Vec2:
    return Wav2Vec2(card, read_shape(checkpoint))


def weights(checkpoint: Checkpoint) -> tuple[Mapping[str, Tensor], Sequence[str]]:
    """Those of the front end and the blocks; not the heads that guess the teacher's layers."""
    shape = read_shape(checkpoint)
    held = checkpoint.under("Distiller.")
    unused = [name for name in held if name.startswith(("output_layer.", "task_embedding."))]
    if shape.norm_first:  # a norm after the last block, which no state has
        unused += [name for name in held if name.startswith("encoder.layer_norm.")]
    given = {name: tensor for name, tensor in held.items() if name not in unused}
    return standard(renamed(given, NAMES), shape), [f"Distiller.{name}" for name in unused]


def read_shape(checkpoint: Checkpoint) -> Shape:
    """The architecture that the file's configuration describes; what it leaves out has the defaults of S3PRL."""
    config = checkpoint.facts.get("Config")
    sizes: Any = config.get("distiller") if isinstance(config, dict) else None
    if not isinstance(sizes, dict):
        raise Refused(f"'{checkpoint.file}' holds the weights of a Distiller but no configuration of one.")
    strange = [
        f"{name} is '{sizes[name]}'"
        for name, known in (
            ("attention_type", ("original",)),
            ("task_emb_type", ("expand-last", "concat-last", "self-hidden", "none")),
            ("extractor_mode", ("default", "layer_norm")),
        )
        if sizes.get(name, known[0]) not in known
    ]
    if strange:
        raise Refused(f"The Distiller in '{checkpoint.file}' is of a kind that is not known: {', '.join(strange)}.")
    convolutions = parse(sizes.get("extractor_conv_feature_layers", CONVOLUTIONS))
    if not convolutions or any(len(convolution) != 3 for convolution in convolutions):
        raise Refused(f"The Distiller in '{checkpoint.file}' has convolutions without channels, kernel and stride.")
    try:
        return Shape(
            dim=int(sizes.get("encoder_embed_dim", 768)),
            layers=int(sizes.get("encoder_layers", 1)),
            heads=int(sizes.get("encoder_attention_heads", 12)),
            inner=int(sizes.get("encoder_ffn_embed_dim", 3072)),
            convolutions=cast(tuple[tuple[int, int, int], ...], convolutions),
            conv_norm="layer" if sizes.get("extractor_mode") == "layer_norm" else "group",
            projection_norm=False,
            position_kernel=int(sizes.get("conv_pos", 128)),
            position_groups=int(sizes.get("conv_pos_groups", 16)),
            norm_first=bool(sizes.get("layer_norm_first", False)),
            activation=str(sizes.get("activation_fn", "gelu")),
        )
    except (TypeError, ValueError) as error:
        raise Refused(f"The configuration in '{checkpoint.file}' does not describe a Distiller ({error!r}).") from error


def _card(shape: Shape, parameters: int, **facts: Any) -> Card:
    return Card(
        **{"name": "", **facts},
        family="DistilHuBERT",
        layers=shape.layers,
        dims=(shape.dim,) * (shape.layers + 1),
        hop=shape.hop,
        shortest=shape.shortest,
        attention=True,
        taps=shape.taps,
        about="DistilHuBERT: the lower part of HuBERT, taught to guess layers of the whole.",
        paper="Chang et al. 2022, arXiv:2110.01900",
        parameters=parameters,
    )


BASE = Shape(768, 2, 12, 3072, ((512, 10, 5), *((512, 3, 2),) * 4, *((512, 2, 2),) * 2), projection_norm=False)

LAYOUT = Layout(
    name="a DistilHuBERT of S3PRL",
    prefix="s3prl",
    recognises=recognises,
    describe=describe,
    build=build,
    weights=weights,
    published=(
        _card(
            BASE,
            name="s3prl:distilhubert",
            source="https://huggingface.co/leo19941227/distilhubert/resolve/main/distilhubert_ls960_4-8-12.ckpt",
            parameters=23_491_072,
            data="LibriSpeech, 960 h",
            languages=("en",),
            bytes=325 * MEGABYTE,
        ),
    ),
)
