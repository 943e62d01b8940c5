"""The wav2vec 2.0 kin as transformers describes it: from a configuration to a card, a network and its weights."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from engine import upstream
from engine.errors import Refused
from engine.nets.wav2vec2 import Shape, Wav2Vec2, standard
from engine.upstream import Card, Upstream

# model_type in the configuration -> what the names of its weights begin with.
PREFIXES = {
    "wav2vec2": "wav2vec2.",
    "hubert": "hubert.",
    "wavlm": "wavlm.",
    "data2vec-audio": "data2vec_audio.",
    "unispeech": "unispeech.",
    "unispeech-sat": "unispeech_sat.",
    "sew": "sew.",
}

QUANTIZING = ("Wav2Vec2ForPreTraining", "Wav2Vec2ConformerForPreTraining", "UniSpeechForPreTraining")

CONVOLUTIONS: dict[str, tuple[int, ...]] = {
    "conv_dim": (512,) * 7,
    "conv_kernel": (10, 3, 3, 3, 3, 2, 2),
    "conv_stride": (5, 2, 2, 2, 2, 2, 2),
}
SEW_CONVOLUTIONS: dict[str, tuple[int, ...]] = {
    "conv_dim": (64, *(128,) * 4, *(256,) * 4, *(512,) * 4),
    "conv_kernel": (10, *(3, 1) * 4, *(2, 1) * 2),
    "conv_stride": (5, *(2, 1) * 6),
}


def describe(config: Mapping[str, Any], preprocessor: Mapping[str, Any], where: str) -> Card:
    """What the configuration says of the network."""
    shape = read_shape(config, preprocessor, where)
    return Card(
        name="",
        family="",
        layers=shape.layers,
        dims=(shape.dim,) * (shape.layers + 1),
        hop=shape.hop,
        shortest=shape.shortest,
        attention=True,
        taps=shape.taps,
    )


def build(card: Card, config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> Upstream:
    """The network as it is before it has learnt anything."""
    return Wav2Vec2(card, read_shape(config, preprocessor, card.name))


def weights(held: Mapping[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Tensor], Sequence[str]]:
    """The weights under the network's names. Heads and mask vectors are no part of its hidden states."""
    shape = read_shape(config, {}, "")
    bare = {name.removeprefix(PREFIXES[config["model_type"]]): name for name in held}
    parts = ["feature_extractor.", "feature_projection.", "encoder."]
    if config["model_type"] == "sew":
        parts.append("layer_norm.")
    if shape.codebooks:
        parts.append("quantizer.weight_proj.")
    given = {ours: held[name] for ours, name in bare.items() if ours.startswith(tuple(parts)) and ".upsample." not in ours}
    return standard(given, shape), sorted(bare.keys() - given.keys())


def read_shape(config: Mapping[str, Any], preprocessor: Mapping[str, Any], where: str) -> Shape:
    """The architecture that a configuration describes; what it leaves out has the defaults of transformers."""
    kind = config["model_type"]
    get = config.get
    usual = SEW_CONVOLUTIONS if kind == "sew" else CONVOLUTIONS
    widths, kernels, strides = (get(name) or usual[name] for name in ("conv_dim", "conv_kernel", "conv_stride"))
    is_data2vec = kind == "data2vec-audio"
    # A model that is saved as it was while it learnt has kept its quantizer.
    quantizes = any(str(name) in QUANTIZING for name in get("architectures") or ())
    rate = preprocessor.get("sampling_rate", upstream.SAMPLE_RATE)
    if rate != upstream.SAMPLE_RATE:
        raise Refused(f"'{where}' was trained at {rate} Hz; only models for {upstream.SAMPLE_RATE} Hz can be used.")
    try:
        return Shape(
            dim=int(get("hidden_size", 768)),
            layers=int(get("num_hidden_layers", 12)),
            heads=int(get("num_attention_heads", 12)),
            inner=int(get("intermediate_size", 3072)),
            convolutions=tuple((int(w), int(k), int(s)) for w, k, s in zip(widths, kernels, strides, strict=True)),
            conv_norm="layer" if is_data2vec or get("feat_extract_norm", "group") == "layer" else "group",
            conv_bias=bool(get("conv_bias", False)),
            projection_norm=bool(get("feat_proj_layer_norm", True)),
            position_kernel=int(get("conv_pos_kernel_size", 19) if is_data2vec else get("num_conv_pos_embeddings", 128)),
            position_groups=int(get("num_conv_pos_embedding_groups", 16)),
            position_depth=int(get("num_conv_pos_embeddings", 5)) if is_data2vec else 1,
            position_norm="layer" if is_data2vec else "batch" if get("conv_pos_batch_norm") else "",
            norm_first=bool(get("do_stable_layer_norm", False)) and not is_data2vec,
            buckets=int(get("num_buckets", 320)) if kind == "wavlm" else 0,
            furthest=int(get("max_bucket_distance", 800)),
            squeeze=int(get("squeeze_factor", 2)) if kind == "sew" else 1,
            adapter=int(get("adapter_attn_dim") or 0) if get("do_stable_layer_norm") else 0,
            activation=str(get("hidden_act", "gelu")),
            conv_activation=str(get("feat_extract_activation", "gelu")),
            epsilon=float(get("layer_norm_eps", 1e-5)),
            # A checkpoint that says nothing of its sound gets it as it is.
            normalise=1e-7 if preprocessor and preprocessor.get("do_normalize", True) else None,
            codebooks=int(get("num_codevector_groups", 2)) if quantizes else 0,
            entries=int(get("num_codevectors_per_group", 320)) if quantizes else 0,
        )
    except (TypeError, ValueError) as error:
        raise Refused(f"The configuration of '{where}' does not describe a usable model: {error}") from error
