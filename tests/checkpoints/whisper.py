"""Whispers that hear one second at once, so that most clips go through in windows."""

from pathlib import Path
from typing import Any

import tiny
import torch


def model(seconds: int = 1, mels: int = 80) -> Any:
    """A tiny Whisper of transformers, decoder and all."""
    from transformers import WhisperConfig, WhisperModel

    torch.manual_seed(0)
    sizes = dict(d_model=16, encoder_ffn_dim=24, decoder_ffn_dim=24, decoder_layers=1, encoder_attention_heads=2)
    tokens = dict(vocab_size=8, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1)
    shape = dict(num_mel_bins=mels, max_source_positions=50 * seconds, decoder_attention_heads=2, encoder_layers=2)
    made = WhisperModel(WhisperConfig(**sizes, **tokens, **shape)).eval()
    tiny.scramble(made)
    return made


def extractor(seconds: int = 1, mels: int = 80) -> Any:
    """The front end that belongs to it."""
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(feature_size=mels, chunk_length=seconds)


def save(folder: Path, seconds: int = 1, mels: int = 80) -> str:
    """Both in a folder."""
    model(seconds, mels).save_pretrained(folder)
    extractor(seconds, mels).save_pretrained(folder)
    return f"hf:{folder}"


MAKE = {"one second": save, "128 bands": lambda folder: save(folder, mels=128)}
