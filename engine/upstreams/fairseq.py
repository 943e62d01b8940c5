"""wav2vec 2.0, HuBERT, data2vec and their kin in fairseq's layout, and in the one that S3PRL converts it to.

State 0 goes into the first block, state i comes out of block i, before any final norm (fairseq's layer results).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from engine.checkpoint import Layout
from engine.nets import fairseq
from engine.nets.wav2vec2 import Shape, Wav2Vec2
from engine.upstream import Card, Upstream
from engine.weights import Checkpoint


def _shape(checkpoint: Checkpoint) -> Shape:
    model, normalise = fairseq.settings(checkpoint)
    held = checkpoint.under(fairseq.root(checkpoint))
    return fairseq.read_shape(model, held, f"'{checkpoint.file}'", normalise=normalise)


def _family(checkpoint: Checkpoint) -> str:
    """Whose training it had; the network is the same for all."""
    root = fairseq.root(checkpoint)
    if any(name.startswith(f"{root}_ema.") for name in checkpoint.tensors):
        return "data2vec"
    model, _ = fairseq.settings(checkpoint)
    named = str(model.get("_name") or model.get("arch"))
    return next((family for family in ("data2vec", "HuBERT") if named.startswith(family.lower())), "wav2vec 2.0")


def _describe(checkpoint: Checkpoint) -> Card:
    shape = _shape(checkpoint)
    about = (
        "fine-tuned, without what was added for that"
        if fairseq.root(checkpoint).endswith(fairseq.FINE_TUNED)
        else "as pre-trained"
    )
    card = fairseq.describe(shape, _family(checkpoint), f"A checkpoint of fairseq, {about}.")
    return replace(card, parameters=fairseq.parameters(shape))


def _build(card: Card, checkpoint: Checkpoint) -> Upstream:
    return Wav2Vec2(card, _shape(checkpoint))


def _weights(checkpoint: Checkpoint) -> tuple[Mapping[str, Tensor], Sequence[str]]:
    return fairseq.read_weights(checkpoint, fairseq.root(checkpoint), _shape(checkpoint))


CONVOLUTIONS = ((512, 10, 5), *((512, 3, 2),) * 4, *((512, 2, 2),) * 2)
SERVER = "https://dl.fbaipublicfiles.com/"
CONVERTED_SERVER = "https://huggingface.co/s3prl/converted_ckpts/resolve/main/"


def _large(dim: int, layers: int, codebooks: int = 0) -> Shape:
    """The sizes whose blocks normalise first."""
    return Shape(
        dim,
        layers,
        16,
        4 * dim,
        CONVOLUTIONS,
        conv_norm="layer",
        conv_bias=codebooks > 0,
        norm_first=True,
        codebooks=codebooks,
        entries=320 if codebooks else 0,
    )


def _data2vec(dim: int, layers: int, heads: int) -> Shape:
    return Shape(
        dim,
        layers,
        heads,
        4 * dim,
        CONVOLUTIONS,
        conv_norm="layer",
        position_kernel=19,
        position_depth=5,
        position_norm="layer",
    )


HUBERT_BASE = Shape(768, 12, 12, 3072, CONVOLUTIONS)
W2V_BASE = replace(HUBERT_BASE, codebooks=2, entries=320)
W2V_BIG = Shape(1024, 24, 16, 4096, CONVOLUTIONS, codebooks=2, entries=320)
W2V_LARGE, W2V_1B, W2V_2B = _large(1024, 24, 2), _large(1280, 48, 2), _large(1920, 48, 2)

W2V, XLSR, XLS_R = (
    "Baevski et al. 2020, arXiv:2006.11477",
    "Conneau et al. 2021, arXiv:2006.13979",
    "Babu et al. 2021, arXiv:2111.09296",
)
HUBERT, DATA2VEC = "Hsu et al. 2021, arXiv:2106.07447", "Baevski et al. 2022, arXiv:2202.03555"
LIBRI, LIGHT = "LibriSpeech, 960 h", "Libri-Light, 60,000 h"
XLSR_DATA = "MLS, Common Voice and BABEL, 56,000 h of 53 languages"
XLS_R_DATA = "VoxPopuli, MLS, Common Voice, VoxLingua107 and BABEL, 436,000 h of 128 languages"
MIXED = "Libri-Light, Common Voice, Switchboard and Fisher"
EN, MANY = ("en",), ("many",)

# Place on the server, family, architecture, numbers that compute, paper, training data, languages, what it is.
Known = tuple[str, str, Shape, int, str, str, tuple[str, ...], str]
KNOWN: list[Known] = [
    ("fairseq/wav2vec/wav2vec_small", "wav2vec 2.0", W2V_BASE, 94_370_816, W2V, LIBRI, EN, "wav2vec 2.0 Base."),
    ("fairseq/wav2vec/libri960_big", "wav2vec 2.0", W2V_BIG, 315_427_840, W2V, LIBRI, EN, "wav2vec 2.0 Large."),
    ("fairseq/wav2vec/wav2vec_vox_new", "wav2vec 2.0", W2V_LARGE, 315_435_520, W2V, LIGHT, EN, "wav2vec 2.0 Large (LV-60)."),
    (
        "fairseq/wav2vec/w2v_large_lv_fsh_swbd_cv",
        "wav2vec 2.0",
        W2V_LARGE,
        315_435_520,
        "Hsu et al. 2021, arXiv:2104.01027",
        MIXED,
        EN,
        "wav2vec 2.0 Large of books, phrases and telephone calls.",
    ),
    (
        "fairseq/wav2vec/xlsr_53_56k",
        "wav2vec 2.0",
        W2V_LARGE,
        315_435_520,
        XLSR,
        XLSR_DATA,
        MANY,
        "XLSR-53, wav2vec 2.0 Large.",
    ),
    ("fairseq/wav2vec/xlsr2_300m", "wav2vec 2.0", W2V_LARGE, 315_435_520, XLS_R, XLS_R_DATA, MANY, "XLS-R 300M."),
    ("fairseq/wav2vec/xlsr2_960m_1000k", "wav2vec 2.0", W2V_1B, 962_493_440, XLS_R, XLS_R_DATA, MANY, "XLS-R 1B."),
    ("fairseq/wav2vec/xlsr2_2B_1000k", "wav2vec 2.0", W2V_2B, 2_159_253_760, XLS_R, XLS_R_DATA, MANY, "XLS-R 2B."),
    ("hubert/hubert_base_ls960", "HuBERT", HUBERT_BASE, 94_370_816, HUBERT, LIBRI, EN, "HuBERT Base."),
    ("hubert/hubert_large_ll60k", "HuBERT", _large(1024, 24), 315_431_936, HUBERT, LIGHT, EN, "HuBERT Large."),
    ("hubert/hubert_xtralarge_ll60k", "HuBERT", _large(1280, 48), 962_489_856, HUBERT, LIGHT, EN, "HuBERT Extra Large."),
    (
        "hubert/mhubert_base_vp_en_es_fr_it3",
        "HuBERT",
        HUBERT_BASE,
        94_370_816,
        "Lee et al. 2022, arXiv:2112.08352",
        "VoxPopuli, the English, Spanish and French of its 100,000 h",
        ("en", "es", "fr"),
        "mHuBERT Base of three languages.",
    ),
    (
        "fairseq/data2vec/audio_base_ls",
        "data2vec",
        _data2vec(768, 12, 12),
        93_163_520,
        DATA2VEC,
        LIBRI,
        EN,
        "data2vec Base.",
    ),
    (
        "fairseq/data2vec/vox_pretrained",
        "data2vec",
        _data2vec(1024, 24, 16),
        313_275_392,
        DATA2VEC,
        LIGHT,
        EN,
        "data2vec Large.",
    ),
]
CONTENTVEC = "Qian et al. 2022, arXiv:2204.09224"


def _known() -> Iterator[Card]:
    for place, family, shape, numbers, paper, data, languages, about in KNOWN:
        yield replace(
            fairseq.describe(shape, family, about),
            name=f"author:{place.rpartition('/')[2]}",
            source=f"{SERVER}{place}.pt",
            license="MIT",  # fairseq's, which its README extends to the models
            paper=paper,
            data=data,
            languages=languages,
            parameters=numbers,
        )


def _contentvec(clusters: int) -> Card:
    about = f"ContentVec: HuBERT Base that learnt to leave the speaker out, with {clusters} clusters."
    return replace(
        fairseq.describe(HUBERT_BASE, "HuBERT", about),
        name=f"s3prl:contentvec_km{clusters}",
        source=f"{CONVERTED_SERVER}contentvec_km{clusters}.pt",
        paper=CONTENTVEC,
        data=LIBRI,
        languages=EN,
        parameters=94_370_816,
    )


AUTHOR = Layout(
    name="wav2vec 2.0, HuBERT or data2vec, as fairseq saves it",
    prefix="author",
    recognises=fairseq.is_authors,
    describe=_describe,
    build=_build,
    weights=_weights,
    published=tuple(_known()),
)
CONVERTED = Layout(
    name="wav2vec 2.0, HuBERT or data2vec of fairseq, as S3PRL converts it",
    prefix="s3prl",
    recognises=fairseq.is_converted,
    describe=_describe,
    build=_build,
    weights=_weights,
    published=(_contentvec(100), _contentvec(500)),
)
