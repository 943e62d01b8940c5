from pathlib import Path
from typing import Any

import tiny
import torch

RATES = {16_000: [2, 4, 5, 8], 24_000: [2, 4, 5, 8], 44_100: [2, 4, 8, 8]}


def model(rate: int) -> Any:
    """A tiny DAC of transformers."""
    from transformers import DacConfig, DacModel

    torch.manual_seed(0)
    sizes = dict(encoder_hidden_size=4, decoder_hidden_size=16, n_codebooks=3, codebook_size=16, codebook_dim=4)
    made = DacModel(DacConfig(**sizes, downsampling_ratios=RATES[rate], sampling_rate=rate)).eval()
    tiny.scramble(made)
    return made


def extractor(rate: int) -> Any:
    """The front end that belongs to it."""
    from transformers import DacFeatureExtractor

    hop = 320 if rate != 44_100 else 512
    return DacFeatureExtractor(sampling_rate=rate, hop_length=hop)


def save(folder: Path, rate: int) -> str:
    """Both in a folder."""
    model(rate).save_pretrained(folder)
    extractor(rate).save_pretrained(folder)
    return f"hf:{folder}"


MAKE = {f"{rate} Hz": lambda folder, rate=rate: save(folder, rate) for rate in RATES}
