"""Networks on the waveform as transformers writes them: the way back of engine/nets/wav2vec2.py's `standard`."""

import json
import secrets
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from engine import upstream
from engine.errors import Refused
from engine.nets.wav2vec2 import Shape, Wav2Vec2
from engine.run import write_text
from engine.upstream import Card, Upstream
from engine.weights import renamed

# model_type of a configuration -> the class of transformers that reads it.
CLASSES = {
    "wav2vec2": "Wav2Vec2Model",
    "hubert": "HubertModel",
    "data2vec-audio": "Data2VecAudioModel",
    "wavlm": "WavLMModel",
}

# Our names -> those of transformers. What is fused or laid out anew is done in `state`.
NAMES = [
    (r"^front\.(\d+)\.norm\.", r"feature_extractor.conv_layers.\1.layer_norm."),
    (r"^front\.(\d+)\.", r"feature_extractor.conv_layers.\1.conv."),
    (r"^projection_norm\.", "feature_projection.layer_norm."),
    (r"^projection\.", "feature_projection.projection."),
    (r"^norm\.", "encoder.layer_norm."),
    (r"^distances\.", "encoder.layers.0.attention.rel_attn_embed."),
    (r"^(blocks\.\d+)\.out\.", r"\1.attention.out_proj."),
    (r"^(blocks\.\d+)\.gate\.", r"\1.attention.gru_rel_pos_linear."),
    (r"^(blocks\.\d+)\.gate_scale$", r"\1.attention.gru_rel_pos_const"),
    (r"^(blocks\.\d+)\.attention_norm\.", r"\1.layer_norm."),
    (r"^(blocks\.\d+)\.feed_norm\.", r"\1.final_layer_norm."),
    (r"^(blocks\.\d+)\.up\.", r"\1.feed_forward.intermediate_dense."),
    (r"^(blocks\.\d+)\.down\.", r"\1.feed_forward.output_dense."),
    (r"^blocks\.", "encoder.layers."),
]


def export(name: str, folder: Path) -> str:
    """Write the upstream of this name for transformers' `from_pretrained(folder)`. Gives the class that reads it."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Refused(f"'{folder}' is there already; name a folder that is new or empty.")
    return write(upstream.load(name), folder)


def write(network: Upstream, folder: Path) -> str:
    """Write a network into a folder that is new or empty."""
    from safetensors.torch import save_file

    network = _exportable(network)
    kind = kind_of(network.shape, network.card)
    beside = folder.with_name(f".{folder.name}.{secrets.token_hex(3)}.tmp")
    try:
        beside.mkdir(parents=True)
        held = {name: tensor.detach().cpu().contiguous() for name, tensor in state(network).items()}
        save_file(held, beside / "model.safetensors", metadata={"format": "pt"})
        for file, told in (("config.json", config(network.shape, kind)), ("preprocessor_config.json", heard(network.shape))):
            write_text(beside / file, json.dumps(told, indent=2) + "\n")
        beside.replace(folder)  # takes the place of an empty folder too
    except OSError as error:
        raise Refused(f"'{folder}' could not be written: {error}.") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return CLASSES[kind]


def _exportable(network: Upstream) -> Wav2Vec2:
    name = network.card.name
    if not isinstance(network, Wav2Vec2):
        raise Refused(
            f"{name} cannot be exported: transformers knows the networks that take the waveform through the convolutions of "
            "wav2vec 2.0, and this is another. Trained here, these are the pretexts whose front is 'waveform'."
        )
    shape = network.shape
    odd_positions = (shape.position_depth > 1) != (shape.position_norm == "layer") or (
        shape.position_depth > 1 and shape.conv_norm != "layer"
    )
    reasons = {
        "its blocks normalise their input, and transformers has a norm after the last one that is no part of it here": (
            shape.norm_first
        ),
        "it squeezes frames, as SEW does": shape.squeeze > 1,
        "the convolutions that tell positions are as in no model of transformers": odd_positions,
    }
    for reason, holds in reasons.items():
        if holds:
            raise Refused(f"{name} cannot be exported: {reason}.")
    return network


def kind_of(shape: Shape, card: Card) -> str:
    """Which of transformers' architectures it is. wav2vec 2.0 and HuBERT compute alike: there the card decides."""
    if shape.buckets:
        return "wavlm"
    if shape.position_depth > 1:
        return "data2vec-audio"
    said = f"{card.name} {card.family} {card.about}".lower()
    only_hubert = shape.position_norm == "batch" or not shape.projection_norm
    return "hubert" if only_hubert or "hubert" in said else "wav2vec2"


def config(shape: Shape, kind: str) -> dict[str, Any]:
    """The configuration of the architecture, as its class takes it."""
    channels, kernels, strides = zip(*shape.convolutions, strict=True)
    told = {
        "architectures": [CLASSES[kind]],
        "model_type": kind,
        "torch_dtype": "float32",
        "hidden_size": shape.dim,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.inner,
        "hidden_act": shape.activation,
        "layer_norm_eps": shape.epsilon,
        "hidden_dropout": shape.dropout,
        "attention_dropout": shape.dropout,
        "feat_proj_dropout": 0.0,
        "activation_dropout": 0.0,
        "layerdrop": shape.layer_drop,
        "conv_dim": list(channels),
        "conv_kernel": list(kernels),
        "conv_stride": list(strides),
        "num_feat_extract_layers": len(channels),
        "conv_bias": shape.conv_bias,
        "feat_extract_norm": shape.conv_norm,
        "feat_extract_activation": shape.conv_activation,
        "num_conv_pos_embeddings": shape.position_kernel,
        "num_conv_pos_embedding_groups": shape.position_groups,
        "do_stable_layer_norm": False,
        # The vector for hidden frames is not part of an upstream.
        "mask_time_prob": 0.0,
        "mask_feature_prob": 0.0,
    }
    if kind == "data2vec-audio":
        told |= {"num_conv_pos_embeddings": shape.position_depth, "conv_pos_kernel_size": shape.position_kernel}
    if kind == "hubert":
        told |= {"feat_proj_layer_norm": shape.projection_norm, "conv_pos_batch_norm": shape.position_norm == "batch"}
    if kind == "wavlm":
        told |= {"num_buckets": shape.buckets, "max_bucket_distance": shape.furthest}
    return told


def heard(shape: Shape) -> dict[str, Any]:
    """What is done to the waveform first."""
    return {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "do_normalize": shape.normalise is not None,
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": shape.conv_norm == "layer",
        "sampling_rate": upstream.SAMPLE_RATE,
    }


def state(network: Wav2Vec2) -> dict[str, Tensor]:
    """The weights under transformers' names and in its layout; a quantizer is left out."""
    shape = network.shape
    ours = {name: tensor.float() for name, tensor in network.state_dict().items() if not name.startswith("quantizer.")}
    for number, (_, kernel, _) in enumerate(shape.convolutions):
        name = f"front.{number}.weight"
        ours[name] = ours[name].unflatten(1, (kernel, -1)).transpose(1, 2)
    for number in range(shape.layers):
        for part in ("weight", "bias"):
            joint = ours.pop(f"blocks.{number}.qkv.{part}").chunk(3)
            ours |= {f"blocks.{number}.attention.{each}_proj.{part}": held for each, held in zip("qkv", joint, strict=True)}
    return renamed(ours, [*NAMES, *_positions(shape, ours)])


def _positions(shape: Shape, ours: dict[str, Tensor]) -> list[tuple[str, str]]:
    """The names of the convolutions that tell positions; where transformers normalises their weights, it is done here."""
    where = "encoder.pos_conv_embed."
    if shape.position_depth > 1:
        return [(r"^positions\.(\d+)\.convolution\.", rf"{where}layers.\1.conv.")]
    if not shape.position_norm:
        weight = ours.pop("positions.0.convolution.weight")
        stem = "positions.0.convolution.parametrizations.weight.original"
        ours |= {f"{stem}0": weight.norm(dim=(0, 1), keepdim=True), f"{stem}1": weight}
    return [(r"^positions\.0\.convolution\.", f"{where}conv."), (r"^positions\.0\.batch_norm\.", f"{where}batch_norm.")]
