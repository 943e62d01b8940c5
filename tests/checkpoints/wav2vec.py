"""Tiny wav2vec and vq-wav2vec in the layout of fairseq, and as S3PRL converts it."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from checkpoints import Maker

CONVOLUTIONS = ((8, 10, 5), (8, 8, 4), (8, 4, 2), (8, 4, 2), (8, 4, 2), (8, 1, 1))
AGGREGATOR = ((8, 2), (8, 3), (6, 4))

PLAIN: dict[str, Any] = {
    "conv_feature_layers": "[(8, 10, 5)] + [(8, 8, 4)] + [(8, 4, 2)] * 3 + [(8, 1, 1)]",
    "conv_aggregator_layers": "[(8, 2, 1), (8, 3, 1), (6, 4, 1)]",
    "aggregator": "cnn",
    "activation": "relu",
    "log_compression": True,
    "skip_connections_feat": False,
    "skip_connections_agg": True,
    "residual_scale": 0.5,
    "no_conv_bias": False,
    "agg_zero_pad": False,
    "non_affine_group_norm": False,
    "offset": "auto",
    "prediction_steps": 2,
    "infonce": False,
    "vq_type": "none",
}
CODES = {"activation": "gelu", "vq_vars": 5, "vq_groups": 2, "vq_dim": 0, "vq_temp": "(2.0, 0.5, 0.999995)"}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    "gumbel": {**PLAIN, **CODES, "vq_type": "gumbel", "vq_depth": 2, "combine_groups": True},
    "gumbel of one layer": {**PLAIN, **CODES, "vq_type": "gumbel", "vq_depth": 1, "combine_groups": False},
    "kmeans": {**PLAIN, **CODES, "vq_type": "kmeans", "combine_groups": False},
    "other switches": {
        **PLAIN,
        "log_compression": False,
        "skip_connections_feat": True,
        "skip_connections_agg": False,
        "residual_scale": 0.4,
        "no_conv_bias": True,
        "agg_zero_pad": True,
        "non_affine_group_norm": True,
    },
}


def weights(settings: dict[str, Any]) -> dict[str, Tensor]:
    """Drawn from a seed with simple operations, so that another program makes the same."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, scale: float = 0.3) -> Tensor:
        return scale * torch.randn(shape, generator=generator)

    state: dict[str, Tensor] = {}

    def norm(name: str, width: int) -> None:
        if not settings["non_affine_group_norm"]:
            state[f"{name}.weight"], state[f"{name}.bias"] = 1 + draw(width), draw(width)

    channels = 1
    for number, (width, kernel, _) in enumerate(CONVOLUTIONS):
        state[f"feature_extractor.conv_layers.{number}.0.weight"] = draw(width, channels, kernel)
        norm(f"feature_extractor.conv_layers.{number}.2", width)
        channels = width
    kind, groups, entries = settings["vq_type"], settings.get("vq_groups", 0), settings.get("vq_vars", 0)
    books = 1 if settings.get("combine_groups") else groups
    if kind == "gumbel":
        state["vector_quantizer.vars"] = draw(1, books * entries, channels // groups, scale=1.0)
        if settings["vq_depth"] == 2:
            state["vector_quantizer.weight_proj.0.0.weight"] = draw(2 * channels, channels)
            state["vector_quantizer.weight_proj.0.0.bias"] = draw(2 * channels)
            state["vector_quantizer.weight_proj.1.weight"] = draw(groups * entries, 2 * channels)
            state["vector_quantizer.weight_proj.1.bias"] = draw(groups * entries)
        else:
            state["vector_quantizer.weight_proj.weight"] = draw(groups * entries, channels)
            state["vector_quantizer.weight_proj.bias"] = draw(groups * entries)
    if kind == "kmeans":
        state["vector_quantizer.embedding"] = draw(entries, books, channels // groups, scale=1.0)
        state["vector_quantizer.projection.0.weight"] = draw(channels, channels // groups, 1)
        state["vector_quantizer.projection.1.weight"] = 1 + draw(channels)
        state["vector_quantizer.projection.1.bias"] = draw(channels)
    for number, (width, kernel) in enumerate(AGGREGATOR):
        state[f"feature_aggregator.conv_layers.{number}.1.weight"] = draw(width, channels, kernel)
        if not settings["no_conv_bias"]:
            state[f"feature_aggregator.conv_layers.{number}.1.bias"] = draw(width)
        norm(f"feature_aggregator.conv_layers.{number}.3", width)
        if settings["skip_connections_agg"] and channels != width:
            state[f"feature_aggregator.residual_proj.{number}.weight"] = draw(width, channels, 1)
        channels = width
    state["wav2vec_predictions.project_to_steps.weight"] = draw(channels, CONVOLUTIONS[-1][0], 1, 2)
    state["wav2vec_predictions.project_to_steps.bias"] = draw(CONVOLUTIONS[-1][0])
    return state


def save(folder: Path, settings: dict[str, Any], layout: str) -> str:
    """Write a file in one of the layouts and name the upstream."""
    folder.mkdir(parents=True, exist_ok=True)
    state = weights(settings)
    held: dict[str, Any] = {
        "fairseq": {"args": Namespace(arch="wav2vec", **settings), "model": state, "optimizer_history": [{}]},
        "newer fairseq": {"args": None, "cfg": {"model": settings, "task": {"normalize": False}}, "model": state},
        "s3prl": {"task_cfg": {"normalize": False}, "model_cfg": settings, "model_weight": state},
    }[layout]
    file = folder / "wav2vec.pt"
    torch.save(held, file)
    return f"{'s3prl' if layout == 's3prl' else 'author'}:{file}"


def _maker(kind: str, layout: str) -> Maker:
    return lambda folder: save(folder, SETTINGS[kind], layout)


MAKE = {
    "plain": _maker("plain", "fairseq"),
    "gumbel": _maker("gumbel", "newer fairseq"),
    "gumbel of one layer": _maker("gumbel of one layer", "s3prl"),
    "kmeans": _maker("kmeans", "s3prl"),
    "other switches": _maker("other switches", "fairseq"),
}
