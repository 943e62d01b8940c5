from pathlib import Path
from typing import Any

import tiny
import torch


def model() -> Any:
    """A tiny Mimi of transformers that looks 20 frames back."""
    from transformers import MimiConfig, MimiModel

    torch.manual_seed(0)
    sizes = dict(num_filters=4, hidden_size=16, codebook_size=16, codebook_dim=8, vector_quantization_hidden_dimension=8)
    blocks = dict(num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, head_dim=8, intermediate_size=24)
    config = MimiConfig(**sizes, **blocks, num_quantizers=4, upsample_groups=16, sliding_window=20)
    made = MimiModel(config).eval()
    tiny.scramble(made)
    for half in (made.quantizer.semantic_residual_vector_quantizer, made.quantizer.acoustic_residual_vector_quantizer):
        for layer in half.layers:  # entries as large as what they stand for
            layer.codebook.cluster_usage.copy_(0.2 + torch.rand(layer.codebook.cluster_usage.shape))
            entries = 0.3 * torch.randn(layer.codebook.embed_sum.shape)
            layer.codebook.embed_sum.copy_(entries * layer.codebook.cluster_usage[:, None])
    return made


def save(folder: Path) -> str:
    """It in a folder, with its front end's settings."""
    from transformers import EncodecFeatureExtractor

    model().save_pretrained(folder)
    EncodecFeatureExtractor(sampling_rate=24_000).save_pretrained(folder)
    return f"hf:{folder}"


MAKE = {"mimi": save}
