"""The speech models that torchaudio offers as bundles: `torchaudio:HUBERT_BASE` and its kin.

The table below says what torchaudio's own code says of each (a test compares them), so that no import of it is needed.
The weights go into our own network, strictly. Where torchaudio's `extract_features` begins with the output of the first
block, state 0 here is the input of it. A bundle that normalises the waveform does so for each clip by itself.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from engine import download, weights
from engine.nets.wav2vec2 import Shape, Wav2Vec2
from engine.settings import settings
from engine.upstream import Card, Family, Upstream

PREFIX = "torchaudio:"
SERVER = "https://download.pytorch.org/torchaudio/models/"
CONVOLUTIONS = ((512, 10, 5), *((512, 3, 2),) * 4, *((512, 2, 2),) * 2)

BASE = Shape(768, 12, 12, 3072, CONVOLUTIONS)
LARGE = Shape(1024, 24, 16, 4096, CONVOLUTIONS)  # like Base, only larger


def _stable(dim: int, layers: int, *, bias: bool, buckets: int = 0) -> Shape:
    """The large architectures whose blocks normalise first."""
    return Shape(
        dim,
        layers,
        16,
        4 * dim,
        CONVOLUTIONS,
        conv_norm="layer",
        conv_bias=bias,
        norm_first=True,
        buckets=buckets,
        normalise=1e-5,
    )


WAVLM = Shape(768, 12, 12, 3072, CONVOLUTIONS, buckets=320)
HUBERT_LARGE, HUBERT_XLARGE = _stable(1024, 24, bias=False), _stable(1280, 48, bias=False)
LV60K = _stable(1024, 24, bias=True)

MIT, NON_COMMERCIAL = "MIT", "CC-BY-NC-4.0"
FINE_TUNED = "fine-tuned to transcribe"

# Name, file, architecture, licence, what it is.
BUNDLES = [
    ("WAV2VEC2_BASE", "wav2vec2_fairseq_base_ls960.pth", BASE, MIT, "wav2vec 2.0 Base, 960 h of English audiobooks."),
    ("WAV2VEC2_LARGE", "wav2vec2_fairseq_large_ls960.pth", LARGE, MIT, "wav2vec 2.0 Large, 960 h of English audiobooks."),
    (
        "WAV2VEC2_LARGE_LV60K",
        "wav2vec2_fairseq_large_lv60k.pth",
        LV60K,
        MIT,
        "wav2vec 2.0 Large, 60,000 h of English audiobooks.",
    ),
    ("WAV2VEC2_XLSR53", "wav2vec2_fairseq_large_xlsr53.pth", LV60K, MIT, "XLSR-53: wav2vec 2.0 Large, 53 languages."),
    ("WAV2VEC2_XLSR_300M", "wav2vec2_xlsr_300m.pth", LV60K, MIT, "XLS-R with 300 M weights, 128 languages."),
    (
        "WAV2VEC2_XLSR_1B",
        "wav2vec2_xlsr_1b.pth",
        _stable(1280, 48, bias=True),
        MIT,
        "XLS-R with 1 B weights, 128 languages.",
    ),
    (
        "WAV2VEC2_XLSR_2B",
        "wav2vec2_xlsr_2b.pth",
        _stable(1920, 48, bias=True),
        MIT,
        "XLS-R with 2 B weights, 128 languages.",
    ),
    ("HUBERT_BASE", "hubert_fairseq_base_ls960.pth", BASE, MIT, "HuBERT Base, 960 h of English audiobooks."),
    ("HUBERT_LARGE", "hubert_fairseq_large_ll60k.pth", HUBERT_LARGE, MIT, "HuBERT Large, 60,000 h of English audiobooks."),
    (
        "HUBERT_XLARGE",
        "hubert_fairseq_xlarge_ll60k.pth",
        HUBERT_XLARGE,
        MIT,
        "HuBERT Extra Large, 60,000 h of English audiobooks.",
    ),
    ("WAVLM_BASE", "wavlm_base.pth", WAVLM, MIT, "WavLM Base, 960 h of English audiobooks."),
    ("WAVLM_BASE_PLUS", "wavlm_base_plus.pth", WAVLM, MIT, "WavLM Base+, 94,000 h of English."),
    ("WAVLM_LARGE", "wavlm_large.pth", _stable(1024, 24, bias=False, buckets=320), MIT, "WavLM Large, 94,000 h of English."),
    *(
        (
            f"WAV2VEC2_ASR_{size}_{amount.upper()}",
            f"wav2vec2_fairseq_{size.lower()}_ls960_asr_{part}.pth",
            shape,
            MIT,
            f"wav2vec 2.0 {size.capitalize()}, {FINE_TUNED} {hours} of English audiobooks.",
        )
        for size, shape in (("BASE", BASE), ("LARGE", LARGE))
        for amount, part, hours in (("10M", "ll10m", "10 minutes"), ("100H", "ls100", "100 h"), ("960H", "ls960", "960 h"))
    ),
    *(
        (
            f"WAV2VEC2_ASR_LARGE_LV60K_{amount}",
            f"wav2vec2_fairseq_large_lv60k_asr_{part}.pth",
            LV60K,
            MIT,
            f"wav2vec 2.0 Large of 60,000 h, {FINE_TUNED} {hours} of English audiobooks.",
        )
        for amount, part, hours in (("10M", "ll10m", "10 minutes"), ("100H", "ls100", "100 h"), ("960H", "ls960", "960 h"))
    ),
    (
        "HUBERT_ASR_LARGE",
        "hubert_fairseq_large_ll60k_asr_ls960.pth",
        HUBERT_LARGE,
        MIT,
        f"HuBERT Large, {FINE_TUNED} 960 h.",
    ),
    (
        "HUBERT_ASR_XLARGE",
        "hubert_fairseq_xlarge_ll60k_asr_ls960.pth",
        HUBERT_XLARGE,
        MIT,
        f"HuBERT XL, {FINE_TUNED} 960 h.",
    ),
    *(
        (
            f"VOXPOPULI_ASR_BASE_10K_{language.upper()}",
            f"wav2vec2_voxpopuli_base_10k_asr_{language}.pt",
            BASE,
            NON_COMMERCIAL,
            f"wav2vec 2.0 Base of 10,000 h in 23 languages, {FINE_TUNED} {name}.",
        )
        for language, name in (("de", "German"), ("en", "English"), ("es", "Spanish"), ("fr", "French"), ("it", "Italian"))
    ),
    (
        "MMS_FA",
        "https://dl.fbaipublicfiles.com/mms/torchaudio/ctc_alignment_mling_uroman/model.pt",
        LV60K,
        NON_COMMERCIAL,
        "MMS: wav2vec 2.0 Large, fine-tuned to align text in over 1,100 languages.",
    ),
]
SHAPES = {name: shape for name, _, shape, _, _ in BUNDLES}


def known() -> Iterator[Card]:
    """A card for each bundle; asks only whether its file is here."""
    for name, address, shape, license, about in BUNDLES:
        yield Card(
            name=PREFIX + name,
            family="torchaudio",
            layers=shape.layers,
            dims=(shape.dim,) * (shape.layers + 1),
            hop=shape.hop,
            shortest=shape.shortest,
            open=open_bundle,
            source=address if "://" in address else SERVER + address,
            revision=Path(address).stem if "://" not in address else "1",
            license=license,
            attention=True,
            here=_file(name).exists(),
            about=about,
            taps=shape.taps,
            fetch=fetch,
            files=_files,
            untrained=untrained,
        )


def _file(name: str) -> Path:
    return settings().downloads / "torchaudio" / f"{name}.pth"


def _files(card: Card) -> list[Path]:
    file = _file(card.name.removeprefix(PREFIX))
    return [*download.traces(file), *weights.conversions(file)]


def open_bundle(card: Card) -> Upstream:
    """Read the weights into the network; they are fetched first where they are not here."""
    name = card.name.removeprefix(PREFIX)
    if not _file(name).exists():
        fetch(card, lambda done, total: None)
    with torch.device("meta"):
        network = Wav2Vec2(card, SHAPES[name])
    state = weights.read(_file(name)).tensors
    # A bundle that transcribes has a last layer for that, and its training had a mask vector.
    parts = ("feature_extractor.", "encoder.")
    given = {key: tensor for key, tensor in state.items() if key.startswith(parts)}
    network.load_standard(given, f"'{_file(name)}'", sorted(state.keys() - given.keys()))
    return network


def fetch(card: Card, progress: Callable[[float, float], None]) -> None:
    """Bring the weights of a bundle into the workspace."""
    download.fetch(card.source, _file(card.name.removeprefix(PREFIX)), progress)


def untrained(card: Card) -> Upstream:
    """The bundle's network before it has learnt anything; nothing is fetched for it."""
    return Wav2Vec2(card, SHAPES[card.name.removeprefix(PREFIX).partition("#")[0]])


FAMILY = Family(cards=known)
