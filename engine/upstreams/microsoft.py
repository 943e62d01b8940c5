"""WavLM and UniSpeech-SAT as Microsoft saves them: fairseq's names, and the settings in one flat list."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from engine.checkpoint import Layout
from engine.errors import Refused
from engine.nets import fairseq
from engine.nets.wav2vec2 import Shape, Wav2Vec2
from engine.upstream import Card, Upstream
from engine.weights import Checkpoint

ROOT = "model."


def _is_microsoft(checkpoint: Checkpoint) -> bool:
    return fairseq.root(checkpoint) == ROOT and "encoder_layers" in fairseq.section(checkpoint, "cfg")


def _shape(checkpoint: Checkpoint) -> Shape:
    settings = fairseq.section(checkpoint, "cfg")
    relative, gated = (bool(settings.get(name, False)) for name in ("relative_position_embedding", "gru_rel_pos"))
    if relative != gated:
        raise Refused(f"'{checkpoint.file}' has relative positions without a gate, or a gate without them; WavLM has both.")
    normalise = bool(settings.get("normalize", False))
    where = f"'{checkpoint.file}'"
    return fairseq.read_shape(settings, checkpoint.under(ROOT), where, normalise=normalise, relative=relative)


def _describe(checkpoint: Checkpoint) -> Card:
    shape = _shape(checkpoint)
    family = "WavLM" if shape.buckets else "UniSpeech-SAT"
    card = fairseq.describe(shape, family, f"A checkpoint of Microsoft in the architecture of {family}.")
    return replace(card, parameters=fairseq.parameters(shape))


def _build(card: Card, checkpoint: Checkpoint) -> Upstream:
    return Wav2Vec2(card, _shape(checkpoint))


def _weights(checkpoint: Checkpoint) -> tuple[Mapping[str, Tensor], Sequence[str]]:
    return fairseq.read_weights(checkpoint, ROOT, _shape(checkpoint))


CONVOLUTIONS = ((512, 10, 5), *((512, 3, 2),) * 4, *((512, 2, 2),) * 2)
BASE = Shape(768, 12, 12, 3072, CONVOLUTIONS)
LARGE = Shape(1024, 24, 16, 4096, CONVOLUTIONS, conv_norm="layer", norm_first=True)
LIBRI, MIXED = "LibriSpeech, 960 h", "Libri-Light, GigaSpeech and VoxPopuli, 94,000 h"
WAVLM, SAT = "Chen et al. 2022, arXiv:2110.13900", "Chen et al. 2022, arXiv:2110.05752"
SERVER = "https://huggingface.co/s3prl/converted_ckpts/resolve/main/"  # the authors' own addresses ask for a visit

# Name, architecture, numbers that compute, training data, what it is.
KNOWN = [
    ("wavlm_base", BASE, 94_381_040, LIBRI, "WavLM Base"),
    ("wavlm_base_plus", BASE, 94_381_040, MIXED, "WavLM Base+"),
    ("wavlm_large", LARGE, 315_449_920, MIXED, "WavLM Large"),
    ("unispeech_sat_base", BASE, 94_370_816, LIBRI, "UniSpeech-SAT Base"),
    ("unispeech_sat_base_plus", BASE, 94_370_816, MIXED, "UniSpeech-SAT Base+"),
    ("unispeech_sat_large", LARGE, 315_431_936, MIXED, "UniSpeech-SAT Large"),
]


def _known() -> Iterator[Card]:
    for name, shape, numbers, data, kind in KNOWN:
        is_wavlm = name.startswith("wavlm")
        trained = "with utterances mixed and made noisy" if is_wavlm else "to tell speakers apart as well"
        yield replace(
            fairseq.describe(shape, "WavLM" if is_wavlm else "UniSpeech-SAT", f"{kind}: HuBERT's training, {trained}."),
            name=f"author:{name}",
            source=f"{SERVER}{name}.pt",
            license="MIT" if is_wavlm else "CC-BY-SA-3.0",
            paper=WAVLM if is_wavlm else SAT,
            data=data,
            languages=("en",),
            parameters=numbers,
        )


LAYOUT = Layout(
    name="WavLM or UniSpeech-SAT, as Microsoft saves it",
    prefix="author",
    recognises=_is_microsoft,
    describe=_describe,
    build=_build,
    weights=_weights,
    published=tuple(_known()),
)
