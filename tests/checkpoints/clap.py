"""CLAPs that hear two seconds at once, so that longer clips go through in windows."""

from pathlib import Path
from typing import Any

import tiny
import torch

SIZES = dict(
    patch_embeds_hidden_size=8,
    depths=[2, 2],
    num_attention_heads=[2, 2],
    hidden_size=16,
    spec_size=64,
    num_mel_bins=16,
    window_size=4,
    aff_block_r=2,
)


def model(fused: bool = False, text: bool = True, patch_norm: bool = True) -> Any:
    """A tiny CLAP of transformers, with its text half or without, with a norm of its patches or without."""
    from transformers import ClapAudioConfig, ClapAudioModel, ClapConfig, ClapModel

    torch.manual_seed(0)
    audio = dict(SIZES, enable_fusion=fused, fusion_type="aff_2d" if fused else None, enable_patch_layer_norm=patch_norm)
    if text:
        words = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=8)
        made = ClapModel(ClapConfig(audio_config=audio, text_config=words, projection_dim=8)).eval()
    else:
        made = ClapAudioModel(ClapAudioConfig(**audio)).eval()
    tiny.scramble(made)
    return made


def extractor(fused: bool = False) -> Any:
    """The front end that belongs to it."""
    from transformers import ClapFeatureExtractor

    truncation = "fusion" if fused else "rand_trunc"
    return ClapFeatureExtractor(feature_size=16, max_length_s=2, truncation=truncation, frequency_min=50)


def save(folder: Path, fused: bool = False, text: bool = True, patch_norm: bool = True) -> str:
    """Both in a folder."""
    model(fused, text, patch_norm).save_pretrained(folder)
    extractor(fused).save_pretrained(folder)
    return f"hf:{folder}"


MAKE = {
    "unfused": save,
    "fused": lambda folder: save(folder, fused=True),
    "audio only": lambda folder: save(folder, text=False),
}
