"""Tiny checkpoints as S3PRL 0.4 writes them: names, shapes and configurations are its own, weights are drawn by NumPy."""

import argparse
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from checkpoints import Maker

MEL = {"target_level": -25, "win_ms": 25, "hop_ms": 10, "n_freq": 201, "n_mels": 20, "n_mfcc": 13}
FEATURE = {"feat_type": "mel", "channel": 0, "log": True, "delta": 0, "cmvn": True}
LOG_MEL: dict[str, Any] = {**MEL, "input": FEATURE, "target": {**FEATURE, "feat_type": "linear", "channel": 1}}
FBANK = {"num_mel_bins": 12, "frame_length": 25.0, "frame_shift": 10.0, "use_log_fbank": True}
MFCC = {"num_ceps": 13, "frame_length": 25.0, "frame_shift": 10.0}
KALDI = {
    "kaldi": {"feat_type": "fbank", "fbank": FBANK, "mfcc": MFCC},
    "delta": {"order": 2, "win_length": 5},
    "cmvn": {"use_cmvn": True},
}
CEPSTRA = {"kaldi": {"feat_type": "mfcc", "mfcc": MFCC}, "delta": {"order": 1}, "cmvn": {"use_cmvn": False}}
TRANSFORMER = {
    "input_dim": -1,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "share_layer": False,
    "pre_layer_norm": False,
}
TASK = {"loss": "L1", "sequence_length": 150, "mask_proportion": 0.15, "mask_frequency": 0, "noise_proportion": 0.0}
SPEC_AUGMENT = {"loss": "L1", "sequence_length": 0, "mask_T": 100, "mask_F": 9, "num_T": 2, "num_F": 2, "p": 1.0}
AUDIO = {"feat_type": "fbank", "feat_dim": 14, "frame_length": 25, "frame_shift": 10, "decode_wav": False}
APC = {"num_layers": 3, "hidden_size": 12, "dropout": 0.1, "residual": True}
VQ = {"codebook_size": [10, 6], "code_dim": [8, 4], "gumbel_temperature": 0.5}
NPC = {"kernel_size": 15, "mask_size": 5, "n_blocks": 3, "hidden_size": 12, "dropout": 0.1, "residual": True}
DISTILLER = {
    "extractor_mode": "default",
    "extractor_conv_feature_layers": "[(8,10,5)] + [(8,3,2)] * 4 + [(8,2,2)] * 2",
    "feature_grad_mult": 0.1,
    "conv_pos": 16,
    "conv_pos_groups": 4,
    "encoder_layers": 2,
    "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 24,
    "encoder_attention_heads": 2,
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "attention_type": "original",
    "encoder_layerdrop": 0.0,
    "final_dim": 16,
    "out_layer_type": "expand-last",
    "n_tasks": 2,
    "task_emb_type": "expand-last",
    "pred_layer_id": [4, 12],
}

Shapes = Mapping[str, tuple[int, ...]]


def draw(shapes: Shapes, seed: int) -> dict[str, torch.Tensor]:
    """A state dict with these names and shapes; the same numbers everywhere."""
    numbers = np.random.default_rng(seed)
    state = {}
    for name, shape in shapes.items():
        values = numbers.standard_normal(shape)
        norm = any(part in name for part in ("LayerNorm.", "layer_norm.", ".bn1.", ".bn2.", ".2.weight", ".2.1.weight"))
        if name.endswith("running_var"):
            values = 0.5 + values**2
        elif norm and name.endswith("weight"):
            values = 1 + 0.2 * values
        elif name.endswith("weight_g"):
            values = 0.5 + 0.2 * values**2
        elif len(shape) < 2:
            values = 0.2 * values
        else:
            values = values / np.sqrt(np.prod(shape[1:]))
        state[name] = torch.from_numpy(np.asarray(values, dtype=np.float32))
    return state


def _linear(name: str, out: int, given: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, given), f"{name}.bias": (out,)}


def _norm(name: str, dim: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def _transformer_shapes(inputs: int, layers: int, norm_first: bool) -> dict[str, tuple[int, ...]]:
    dim, inner = TRANSFORMER["hidden_size"], TRANSFORMER["intermediate_size"]
    shapes = _linear("input_representations.spec_transform", dim, inputs)  # type: ignore[arg-type]
    shapes |= _norm("input_representations.LayerNorm", dim)  # type: ignore[arg-type]
    for number in range(layers):
        block = f"encoder.layer.{number}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= _linear(f"{block}.attention.{part}", dim, dim)  # type: ignore[arg-type]
        shapes |= _norm(f"{block}.attention.output.LayerNorm", dim)  # type: ignore[arg-type]
        shapes |= _linear(f"{block}.intermediate.dense", inner, dim)  # type: ignore[arg-type]
        shapes |= _linear(f"{block}.output.dense", dim, inner)  # type: ignore[arg-type]
        shapes |= _norm(f"{block}.output.LayerNorm", dim)  # type: ignore[arg-type]
    for number in range(layers + 1 if norm_first else 0):
        shapes |= _norm(f"encoder.LayerNorm.{number}", dim)  # type: ignore[arg-type]
    return shapes


def transformer(
    folder: Path,
    *,
    audio: Mapping[str, Any],
    task: Mapping[str, Any] = TASK,
    old: bool = False,
    inputs: int,
    **changes: Any,
) -> str:
    """Mockingjay and its kin; the older layout keeps the configuration under another name, and objects of a schedule."""
    network = {**TRANSFORMER, **changes}
    shared, norm_first = network["share_layer"], network["pre_layer_norm"]
    state = draw(_transformer_shapes(inputs, 1 if shared else network["num_hidden_layers"], norm_first), seed=1)
    if shared:
        own = {name: tensor for name, tensor in state.items() if ".layer.0." in name}
        for number in range(1, network["num_hidden_layers"]):
            state |= {name.replace(".layer.0.", f".layer.{number}."): tensor for name, tensor in own.items()}
    if norm_first:  # S3PRL reaches the same norm under two names
        for name in [name for name in state if ".layer." in name and ".output.LayerNorm." in name]:
            state[name.replace(".output.LayerNorm.", ".LayerNorm.")] = state[name]
    head = draw(_linear("dense", 16, 16) | _norm("LayerNorm", 16) | _linear("output", 201, 16), seed=2)
    config = {"transformer": network, "task": dict(task), "audio": dict(audio)}
    held: dict[str, Any] = {"SpecHead": head, "Transformer": state, "Args": argparse.Namespace(upstream="mockingjay")}
    if old:
        held |= {"Config": config, "Global_step": 7, "Runner": {"n_epochs": -1}, "Schedule": _schedule()}
    else:
        held |= {"Config": {"runner": {"total_steps": 7}}, "Upstream_Config": config, "Step": 7}
    return _save(folder, held)


def _schedule() -> object:
    """An object of a class that only S3PRL has, as older checkpoints hold one."""
    module = types.ModuleType("optimizers")
    module.WarmupLinearSchedule = type("WarmupLinearSchedule", (), {"__module__": "optimizers"})  # type: ignore[attr-defined]
    sys.modules["optimizers"] = module
    schedule: object = module.WarmupLinearSchedule()
    schedule.__dict__["warmup_steps"] = 70
    return schedule


def apc(folder: Path, *, audio: Mapping[str, Any] = AUDIO, **changes: Any) -> str:
    paras = {**APC, **changes}
    dim, mels = paras["hidden_size"], audio["feat_dim"]
    shapes: dict[str, tuple[int, ...]] = {}
    for number in range(paras["num_layers"]):
        shapes |= {
            f"rnn_layers.{number}.weight_ih_l0": (3 * dim, dim if number else mels),
            f"rnn_layers.{number}.weight_hh_l0": (3 * dim, dim),
            f"rnn_layers.{number}.bias_ih_l0": (3 * dim,),
            f"rnn_layers.{number}.bias_hh_l0": (3 * dim,),
        }
    shapes |= _quantizer(paras) | _linear("postnet", mels, dim)
    return _predictive(folder, paras, audio, draw(shapes, seed=3))


def npc(folder: Path, *, audio: Mapping[str, Any] = AUDIO, **changes: Any) -> str:
    paras = {**NPC, **changes}
    dim, mels, kernel, blocks = paras["hidden_size"], audio["feat_dim"], paras["kernel_size"], paras["n_blocks"]
    shapes: dict[str, tuple[int, ...]] = {}
    for number in range(blocks):
        name = f"blocks.{number}"
        shapes |= {f"{name}.conv.weight": (dim, dim if number else mels, 3), f"{name}.conv.bias": (dim,)}
        shapes |= {f"{name}.linear.weight": (dim, dim, 1), f"{name}.linear.bias": (dim,)}
        for norm in ("bn1", "bn2") if paras.get("batch_norm", True) else ():
            shapes |= _norm(f"{name}.{norm}", dim)
            shapes |= {f"{name}.{norm}.running_mean": (dim,), f"{name}.{norm}.running_var": (dim,)}
    masked = range(blocks - 1, blocks) if paras.get("disable_cross_layer") else range(blocks)
    for number in masked:
        shapes |= {f"masked_convs.{number}.conv.weight": (dim, dim, kernel), f"masked_convs.{number}.conv.bias": (dim,)}
    bottleneck = paras.get("dim_bottleneck")
    shapes |= {"ae_bottleneck.weight": (bottleneck, dim)} if bottleneck else _quantizer(paras)
    state = draw(shapes | _linear("postnet", mels, bottleneck or dim), seed=4)
    for number in masked:
        width = paras["mask_size"] + 2 * (number + 1)
        seen = torch.ones(dim, dim, kernel)
        seen[:, :, (kernel - width) // 2 : (kernel + width) // 2] = 0
        state[f"masked_convs.{number}.conv_mask"] = seen
    for name in [name for name in state if name.endswith("running_var")]:
        state[name.replace("running_var", "num_batches_tracked")] = torch.tensor(7)
    return _predictive(folder, paras, audio, state)


def _quantizer(paras: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    vq = paras.get("vq") or {"codebook_size": [], "code_dim": []}
    for number, (entries, width) in enumerate(zip(vq["codebook_size"], vq["code_dim"], strict=True)):
        shapes |= _linear(f"vq_layers.{number}.vq_logits", entries, width)
        shapes |= {f"vq_layers.{number}.codebook_CxE.weight": (width, entries)}
    return shapes


def _predictive(folder: Path, paras: Any, audio: Any, state: dict[str, torch.Tensor]) -> str:
    config = {"model": {"paras": paras}, "task": {"sequence_length": 1500, "n_future": 5}, "data": {"audio": dict(audio)}}
    optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-4}]}
    held = {"Optimizer": optimizer, "Step": 7, "Args": argparse.Namespace(upstream="apc"), "config": config, "model": state}
    return _save(folder, {**held, "Upstream_Config": config, "Config": {"runner": {"n_epochs": 100}}})


def distiller(folder: Path, **changes: Any) -> str:
    sizes = {**DISTILLER, **changes}
    dim, inner = sizes["encoder_embed_dim"], sizes["encoder_ffn_embed_dim"]
    shapes: dict[str, tuple[int, ...]] = {}
    for number, kernel in enumerate((10, 3, 3, 3, 3, 2, 2)):
        shapes[f"feature_extractor.conv_layers.{number}.0.weight"] = (8, 8 if number else 1, kernel)
        if sizes["extractor_mode"] == "layer_norm":
            shapes |= _norm(f"feature_extractor.conv_layers.{number}.2.1", 8)
        elif number == 0:
            shapes |= _norm("feature_extractor.conv_layers.0.2", 8)
    kernel, groups = sizes["conv_pos"], sizes["conv_pos_groups"]
    shapes |= _linear("post_extract_proj", dim, 8)
    shapes |= {"encoder.pos_conv.0.bias": (dim,), "encoder.pos_conv.0.weight_g": (1, 1, kernel)}
    shapes |= {"encoder.pos_conv.0.weight_v": (dim, dim // groups, kernel)}
    for number in range(sizes["encoder_layers"]):
        block = f"encoder.layers.{number}"
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            shapes |= _linear(f"{block}.self_attn.{part}", dim, dim)
        shapes |= _norm(f"{block}.self_attn_layer_norm", dim) | _norm(f"{block}.final_layer_norm", dim)
        shapes |= _linear(f"{block}.fc1", inner, dim) | _linear(f"{block}.fc2", dim, inner)
    shapes |= _norm("encoder.layer_norm", dim)
    tasks = sizes["n_tasks"]
    shapes |= _linear("output_layer.0", dim * tasks, dim)
    shapes |= {"output_layer.2.weight": (tasks, dim, dim), "output_layer.2.bias": (1, 1, tasks, dim)}
    config = {"distiller": sizes, "teacher": {"model": "hubert_base", "n_layers": 12}, "audio": {"target_level": "None"}}
    return _save(folder, {"Distiller": draw(shapes, seed=5), "Config": config, "Args": argparse.Namespace(seed=1337)})


def _save(folder: Path, held: dict[str, Any]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "states-7.ckpt"
    torch.save(held, file)
    return f"s3prl:{file}"


TERA = {**TASK, "mask_frequency": 0.2}
EVERY: dict[str, Maker] = {
    "mockingjay": lambda folder: transformer(folder, audio=KALDI, inputs=36),
    "tera": lambda folder: transformer(folder, audio=LOG_MEL, inputs=20, task=TERA, old=True),
    "audio-albert": lambda folder: transformer(folder, audio=LOG_MEL, inputs=20, share_layer=True),
    "spec-augment": lambda folder: transformer(
        folder, audio=LOG_MEL, inputs=20, task=SPEC_AUGMENT, pre_layer_norm=True, hidden_act="relu", layer_norm_eps=1e-5
    ),
    "loudness": lambda folder: transformer(folder, audio={**LOG_MEL, "input": {**FEATURE, "cmvn": False}}, inputs=20),
    "cepstra": lambda folder: transformer(folder, audio=CEPSTRA, inputs=26, hidden_act="swish"),
    "apc": apc,
    "vq-apc": lambda folder: apc(folder, vq=VQ, audio={**AUDIO, "cmvn": False}),
    "npc": lambda folder: npc(folder, vq=VQ),
    "npc-bottleneck": lambda folder: npc(folder, dim_bottleneck=5, activate="tanh", batch_norm=False, residual=False),
    "npc-last": lambda folder: npc(folder, disable_cross_layer=True, vq=VQ),
    "distiller": distiller,
    "distiller-stable": lambda folder: distiller(folder, extractor_mode="layer_norm", layer_norm_first=True, conv_pos=15),
}
# Those that differ in more than an activation are swept by the contracts.
MAKE = {kind: EVERY[kind] for kind in ("mockingjay", "tera", "audio-albert", "apc", "vq-apc", "npc", "distiller")}
