from pathlib import Path
from typing import Any

import tiny
import torch


def model(causal: bool = True, rate: int = 24_000) -> Any:
    """A tiny EnCodec of transformers; where it looks ahead it has two residual blocks before each step down."""
    from transformers import EncodecConfig, EncodecModel

    torch.manual_seed(0)
    sizes = dict(num_filters=4, hidden_size=8, upsampling_ratios=[8, 5, 4, 2], codebook_size=16, num_lstm_layers=2)
    sizes["num_residual_layers"] = 1 if causal else 2
    config = EncodecConfig(**sizes, target_bandwidths=[0.6, 1.5], use_causal_conv=causal, sampling_rate=rate)
    made = EncodecModel(config).eval()
    tiny.scramble(made)
    with torch.no_grad():
        latents = made.encoder(0.2 * torch.randn(1, 1, 16 * 320))[0].T
    first, *others = made.quantizer.layers
    first.codebook.embed.copy_(latents)  # entries that are near to what they stand for
    for layer in others:
        layer.codebook.embed.copy_(latents.std(dim=0) * torch.randn(latents.shape))
    return made


def save(folder: Path, causal: bool = True, rate: int = 24_000) -> str:
    """It in a folder, with its front end's settings."""
    from transformers import EncodecFeatureExtractor

    model(causal, rate).save_pretrained(folder)
    EncodecFeatureExtractor(sampling_rate=rate).save_pretrained(folder)
    return f"hf:{folder}"


MAKE = {"causal": save, "32 kHz": lambda folder: save(folder, causal=False, rate=32_000)}
