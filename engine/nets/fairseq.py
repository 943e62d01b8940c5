"""The wav2vec 2.0 kin as fairseq writes it: settings to a shape, names of weights to ours. Microsoft's files are alike."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from engine.errors import Refused
from engine.nets import describing
from engine.nets.conv_strings import parse
from engine.nets.wav2vec2 import Shape, Wav2Vec2, standard
from engine.upstream import Card
from engine.weights import Checkpoint, renamed

FIRST = "feature_extractor.conv_layers.0.0.weight"
BLOCK = "encoder.layers.0.fc1.weight"
FINE_TUNED = "w2v_encoder.w2v_model."
PRUNED = ("hubert_pruner", "student_hubert")  # of LightHuBERT, which reads the same settings differently
PARTS = ("feature_extractor.", "layer_norm.", "post_extract_proj.", "encoder.")
CONVOLUTIONS = "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512, 2, 2)] * 2"
EPSILON = 1e-5  # with which the waveform is normalised, where it is
ACTIVATIONS = {"gelu_fast": "gelu_new", "gelu_accurate": "gelu_new"}  # fairseq's names that others spell differently

# Names of fairseq -> ours. What is fused or laid out anew is done in `standard`.
NAMES = [
    (r"^feature_extractor\.conv_layers\.(\d+)\.0\.", r"front.\1."),
    (r"^feature_extractor\.conv_layers\.(\d+)\.2\.(?:1\.)?", r"front.\1.norm."),
    (r"^layer_norm\.", "projection_norm."),
    (r"^post_extract_proj\.", "projection."),
    (r"^encoder\.pos_conv\.(\d+)\.0\.", r"positions.\1.convolution."),
    (r"^encoder\.pos_conv\.0\.", "positions.0.convolution."),
    (r"^encoder\.layer_norm\.", "norm."),
    (r"^encoder\.layers\.0\.self_attn\.relative_attention_bias\.", "distances."),
    (r"^encoder\.layers\.(\d+)\.", r"blocks.\1."),
    (r"\.self_attn_layer_norm\.", ".attention_norm."),
    (r"\.final_layer_norm\.", ".feed_norm."),
    (r"\.self_attn\.out_proj\.", ".out."),
    (r"\.self_attn\.grep_linear\.", ".gate."),
    (r"\.self_attn\.grep_a$", ".gate_scale"),
    (r"\.self_attn\.", ".attention."),
    (r"\.fc1\.", ".up."),
    (r"\.fc2\.", ".down."),
    (r"^quantizer\.weight_proj\.", "quantizer."),
]


def root(checkpoint: Checkpoint, block: str = BLOCK) -> str:
    """What the names of the network begin with: "model.", or more in a file that was fine-tuned; empty where it is none."""
    for name in checkpoint.tensors:
        if name.endswith(f".{FIRST}"):
            beginning = name.removesuffix(FIRST)
            if f"{beginning}{block}" in checkpoint.tensors:
                return beginning
    return ""


def is_authors(checkpoint: Checkpoint, block: str = BLOCK) -> bool:
    """Whether fairseq wrote it."""
    written = section(checkpoint, "cfg", "model") or section(checkpoint, "args")
    pruned = section(checkpoint, "cfg", "model").get("_name") in PRUNED
    return root(checkpoint, block).startswith("model.") and bool(written) and not pruned


def is_converted(checkpoint: Checkpoint, block: str = BLOCK) -> bool:
    """Whether S3PRL converted it."""
    return root(checkpoint, block).startswith("model_weight.") and bool(section(checkpoint, "model_cfg"))


def section(checkpoint: Checkpoint, *path: str) -> Mapping[str, Any]:
    """The settings at a place in a file; empty where there are none."""
    found: Any = checkpoint.facts
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def settings(checkpoint: Checkpoint) -> tuple[Mapping[str, Any], bool]:
    """Those of the network as it was pre-trained, and whether the waveform is normalised."""
    model, task = _written(checkpoint)
    if any(name.startswith(f"model.{FINE_TUNED}") for name in checkpoint.tensors):
        before = model.get("w2v_args")
        if not isinstance(before, Mapping):
            raise Refused(
                f"'{checkpoint.file}' was fine-tuned, and nothing in it ('w2v_args') tells the network that it began with."
            )
        inner = before.get("model")
        model = inner if isinstance(inner, Mapping) else before
    return model, bool(task.get("normalize", False))


def _written(checkpoint: Checkpoint) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Settings of the model and of its task; the old layout mixes them."""
    if "model_cfg" in checkpoint.facts:
        return section(checkpoint, "model_cfg"), section(checkpoint, "task_cfg")
    model = section(checkpoint, "cfg", "model")
    if model:
        return model, section(checkpoint, "cfg", "task")
    return (section(checkpoint, "args"),) * 2


def read_shape(
    settings: Mapping[str, Any], held: Mapping[str, Tensor], where: str, *, normalise: bool, relative: bool = False
) -> Shape:
    """The architecture that settings describe; what they leave out has fairseq's defaults. `relative`: WavLM's positions."""
    get = settings.get
    kind, crop = get("layer_type", "transformer"), get("crop_seq_to_multiple", 1)
    if kind != "transformer":
        raise Refused(f"The blocks of {where} are of the type '{kind}'; fairseq's type 'transformer' can be read.")
    if crop != 1:
        raise Refused(f"{where} leaves out frames so that a multiple of {crop} is left, which cannot be done here.")
    layers = parse(get("conv_feature_layers", CONVOLUTIONS))
    if any(len(layer) != 3 for layer in layers) or not layers:
        raise Refused(f"The convolutions of {where} should each have channels, kernel and stride; there is {layers}.")
    activation = str(get("activation_fn", "gelu"))
    try:
        depth = int(get("pos_conv_depth", 1))
        kernel = int(get("conv_pos", 128))
        # A quantizer of more than one layer is left out, as is one that a fine-tuned file has lost.
        quantizes = "quantizer.weight_proj.weight" in held
        return Shape(
            dim=int(get("encoder_embed_dim", 768)),
            layers=int(get("encoder_layers", 12)),
            heads=int(get("encoder_attention_heads", 12)),
            inner=int(get("encoder_ffn_embed_dim", 3072)),
            convolutions=tuple((width, size, stride) for width, size, stride in layers),
            conv_norm="layer" if get("extractor_mode", "default") == "layer_norm" else "group",
            conv_bias=bool(get("conv_bias", False)),
            position_kernel=max(3, kernel // depth) if depth > 1 else kernel,
            position_groups=int(get("conv_pos_groups", 16)),
            position_depth=depth,
            position_norm="layer" if depth > 1 else "",
            norm_first=bool(get("layer_norm_first", False)),
            buckets=int(get("num_buckets", 320)) if relative else 0,
            furthest=int(get("max_distance", 1280)),
            activation=ACTIVATIONS.get(activation, activation),
            normalise=EPSILON if normalise else None,
            codebooks=int(get("latent_groups", 2)) if quantizes else 0,
            entries=int(get("latent_vars", 320)) if quantizes else 0,
        )
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise Refused(f"The settings in {where} do not describe a usable model: {error}") from error


def read_weights(
    checkpoint: Checkpoint, beginning: str, shape: Shape, parts: tuple[str, ...] = PARTS
) -> tuple[dict[str, Tensor], Sequence[str]]:
    """The weights under the network's names. Heads, mask vectors and teachers are no part of its hidden states."""
    wanted = (*parts, "quantizer.weight_proj.") if shape.codebooks else parts
    given = {name: tensor for name, tensor in checkpoint.under(beginning).items() if name.startswith(wanted)}
    unused = sorted(name for name in checkpoint.tensors if name.removeprefix(beginning) not in given)
    return standard(renamed(given, NAMES), shape), unused


def describe(shape: Shape, family: str, about: str) -> Card:
    """What a shape says of its network."""
    return Card(
        name="",
        family=family,
        layers=shape.layers,
        dims=(shape.dim,) * (shape.layers + 1),
        hop=shape.hop,
        shortest=shape.shortest,
        attention=True,
        taps=shape.taps,
        about=about,
    )


def parameters(shape: Shape) -> int:
    """How many numbers of such a network make its states."""
    with torch.device("meta"):
        network = Wav2Vec2(describe(shape, "", ""), shape)
    return describing.parameters(network)
