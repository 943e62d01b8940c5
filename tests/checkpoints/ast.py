"""Spectrogram Transformers with room for two seconds, so that longer clips go through in windows."""

from pathlib import Path
from typing import Any

import tiny
import torch

LENGTH = 208


def model(labels: bool = True) -> Any:
    """A tiny one of transformers, with a classifier or without."""
    from transformers import ASTConfig, ASTForAudioClassification, ASTModel

    torch.manual_seed(0)
    sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
    config = ASTConfig(**sizes, max_length=LENGTH, num_mel_bins=36, frequency_stride=10, time_stride=10)
    made = (ASTForAudioClassification if labels else ASTModel)(config).eval()
    tiny.scramble(made)
    return made


def extractor() -> Any:
    """The front end that belongs to it."""
    from transformers import ASTFeatureExtractor

    return ASTFeatureExtractor(num_mel_bins=36, max_length=LENGTH)


def save(folder: Path, labels: bool = True) -> str:
    """Both in a folder."""
    model(labels).save_pretrained(folder)
    extractor().save_pretrained(folder)
    return f"hf:{folder}"


MAKE = {"classifier": save, "bare": lambda folder: save(folder, labels=False)}
