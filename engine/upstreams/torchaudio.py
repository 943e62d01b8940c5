"""The speech models that torchaudio offers as bundles: `torchaudio:HUBERT_BASE` and its kin.

The table below says what torchaudio's own code says of each (a test compares them), so that no import of it is needed.
The weights go into our own network, strictly. Where torchaudio's `extract_features` begins with the output of the first
block, state 0 here is the input of it. A bundle that normalises the waveform does so for each clip by itself.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
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
LV60K, XLSR_1B, XLSR_2B = _stable(1024, 24, bias=True), _stable(1280, 48, bias=True), _stable(1920, 48, bias=True)
WAVLM_LARGE = _stable(1024, 24, bias=False, buckets=320)

# Numbers that make the states.
PARAMETERS = {
    BASE: 94_370_816,
    LARGE: 315_427_840,
    LV60K: 315_435_520,
    XLSR_1B: 962_493_440,
    XLSR_2B: 2_159_253_760,
    HUBERT_LARGE: 315_431_936,
    HUBERT_XLARGE: 962_489_856,
    WAVLM: 94_381_040,
    WAVLM_LARGE: 315_449_920,
}


@dataclass(frozen=True)
class Origin:
    """What a bundle learnt from."""

    family: str
    paper: str
    data: str
    languages: tuple[str, ...] = ("en",)
    license: str = "MIT"


PAPER, NON_COMMERCIAL = "Baevski et al. 2020, arXiv:2006.11477", "CC-BY-NC-4.0"
LIBRI, LIGHT = "LibriSpeech, 960 h", "Libri-Light, 60,000 h"
W2V, W2V_LV60K = Origin("wav2vec 2.0", PAPER, LIBRI), Origin("wav2vec 2.0", PAPER, LIGHT)
XLSR53 = Origin(
    "wav2vec 2.0",
    "Conneau et al. 2021, arXiv:2006.13979",
    "MLS, Common Voice and BABEL, 56,000 h of 53 languages",
    ("many",),
)
XLSR = Origin(
    "wav2vec 2.0",
    "Babu et al. 2021, arXiv:2111.09296",
    "VoxPopuli, MLS, Common Voice, VoxLingua107 and BABEL, 436,000 h of 128 languages",
    ("many",),
)
HUBERT = Origin("HuBERT", "Hsu et al. 2021, arXiv:2106.07447", LIBRI)
HUBERT_LL60K = replace(HUBERT, data=LIGHT)
WAVLM_LIBRI = Origin("WavLM", "Chen et al. 2022, arXiv:2110.13900", LIBRI)
WAVLM_MIXED = replace(WAVLM_LIBRI, data="Libri-Light, GigaSpeech and VoxPopuli, 94,000 h")
VOXPOPULI = Origin(
    "wav2vec 2.0",
    "Wang et al. 2021, arXiv:2101.00390",
    "VoxPopuli, 10,000 h of 23 languages",
    ("many",),
    NON_COMMERCIAL,
)
MMS = Origin("wav2vec 2.0", "Pratap et al. 2024, arXiv:2305.13516", "31,000 h of 1,130 languages", ("many",), NON_COMMERCIAL)
FINE_TUNED = "fine-tuned to transcribe"
AMOUNTS = (("10M", "ll10m", "10 minutes"), ("100H", "ls100", "100 h"), ("960H", "ls960", "960 h"))
LANGUAGES = (("de", "German"), ("en", "English"), ("es", "Spanish"), ("fr", "French"), ("it", "Italian"))

# Name, file, architecture, what it learnt from, what it is.
BUNDLES = [
    ("WAV2VEC2_BASE", "wav2vec2_fairseq_base_ls960.pth", BASE, W2V, "wav2vec 2.0 Base, as pre-trained."),
    ("WAV2VEC2_LARGE", "wav2vec2_fairseq_large_ls960.pth", LARGE, W2V, "wav2vec 2.0 Large, as pre-trained."),
    (
        "WAV2VEC2_LARGE_LV60K",
        "wav2vec2_fairseq_large_lv60k.pth",
        LV60K,
        W2V_LV60K,
        "wav2vec 2.0 Large LV-60, as pre-trained.",
    ),
    ("WAV2VEC2_XLSR53", "wav2vec2_fairseq_large_xlsr53.pth", LV60K, XLSR53, "XLSR-53: wav2vec 2.0 Large, 53 languages."),
    ("WAV2VEC2_XLSR_300M", "wav2vec2_xlsr_300m.pth", LV60K, XLSR, "XLS-R 300M: wav2vec 2.0 Large, 128 languages."),
    ("WAV2VEC2_XLSR_1B", "wav2vec2_xlsr_1b.pth", XLSR_1B, XLSR, "XLS-R 1B: wav2vec 2.0, 128 languages."),
    ("WAV2VEC2_XLSR_2B", "wav2vec2_xlsr_2b.pth", XLSR_2B, XLSR, "XLS-R 2B: wav2vec 2.0, 128 languages."),
    ("HUBERT_BASE", "hubert_fairseq_base_ls960.pth", BASE, HUBERT, "HuBERT Base, as pre-trained."),
    ("HUBERT_LARGE", "hubert_fairseq_large_ll60k.pth", HUBERT_LARGE, HUBERT_LL60K, "HuBERT Large, as pre-trained."),
    (
        "HUBERT_XLARGE",
        "hubert_fairseq_xlarge_ll60k.pth",
        HUBERT_XLARGE,
        HUBERT_LL60K,
        "HuBERT Extra Large, as pre-trained.",
    ),
    ("WAVLM_BASE", "wavlm_base.pth", WAVLM, WAVLM_LIBRI, "WavLM Base, as pre-trained."),
    ("WAVLM_BASE_PLUS", "wavlm_base_plus.pth", WAVLM, WAVLM_MIXED, "WavLM Base+, as pre-trained."),
    ("WAVLM_LARGE", "wavlm_large.pth", WAVLM_LARGE, WAVLM_MIXED, "WavLM Large, as pre-trained."),
    *(
        (
            f"WAV2VEC2_ASR_{size}_{amount}",
            f"wav2vec2_fairseq_{size.lower()}_ls960_asr_{part}.pth",
            shape,
            W2V,
            f"wav2vec 2.0 {size.capitalize()} {amount}: {FINE_TUNED} {hours} of English audiobooks.",
        )
        for size, shape in (("BASE", BASE), ("LARGE", LARGE))
        for amount, part, hours in AMOUNTS
    ),
    *(
        (
            f"WAV2VEC2_ASR_LARGE_LV60K_{amount}",
            f"wav2vec2_fairseq_large_lv60k_asr_{part}.pth",
            LV60K,
            W2V_LV60K,
            f"wav2vec 2.0 Large LV-60 {amount}: {FINE_TUNED} {hours} of English audiobooks.",
        )
        for amount, part, hours in AMOUNTS
    ),
    (
        "HUBERT_ASR_LARGE",
        "hubert_fairseq_large_ll60k_asr_ls960.pth",
        HUBERT_LARGE,
        HUBERT_LL60K,
        f"HuBERT Large 960H: {FINE_TUNED} 960 h of English audiobooks.",
    ),
    (
        "HUBERT_ASR_XLARGE",
        "hubert_fairseq_xlarge_ll60k_asr_ls960.pth",
        HUBERT_XLARGE,
        HUBERT_LL60K,
        f"HuBERT Extra Large 960H: {FINE_TUNED} 960 h of English audiobooks.",
    ),
    *(
        (
            f"VOXPOPULI_ASR_BASE_10K_{language.upper()}",
            f"wav2vec2_voxpopuli_base_10k_asr_{language}.pt",
            BASE,
            replace(VOXPOPULI, data=f"{VOXPOPULI.data}; transcribed {name}"),
            f"VoxPopuli Base 10k {name}: wav2vec 2.0 Base, {FINE_TUNED} {name}.",
        )
        for language, name in LANGUAGES
    ),
    (
        "MMS_FA",
        "https://dl.fbaipublicfiles.com/mms/torchaudio/ctc_alignment_mling_uroman/model.pt",
        LV60K,
        MMS,
        "MMS alignment: wav2vec 2.0 Large, fine-tuned to align text in over 1,100 languages.",
    ),
]
SHAPES = {name: shape for name, _, shape, _, _ in BUNDLES}


def known() -> Iterator[Card]:
    """A card for each bundle; asks only whether its file is here."""
    for name, address, shape, origin, about in BUNDLES:
        yield Card(
            name=PREFIX + name,
            family=origin.family,
            layers=shape.layers,
            dims=(shape.dim,) * (shape.layers + 1),
            hop=shape.hop,
            shortest=shape.shortest,
            open=open_bundle,
            source=address if "://" in address else SERVER + address,
            revision=Path(address).stem if "://" not in address else "1",
            license=origin.license,
            attention=True,
            here=_file(name).exists(),
            about=about,
            paper=origin.paper,
            data=origin.data,
            languages=origin.languages,
            parameters=PARAMETERS.get(shape, 0),
            bytes=4 * PARAMETERS.get(shape, 0),  # float32, and next to nothing besides
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
