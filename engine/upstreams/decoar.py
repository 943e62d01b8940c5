"""DeCoAR and DeCoAR 2.0 as their authors save them: no word on the architecture, which names and sizes tell."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from engine.checkpoint import Layout
from engine.errors import Refused
from engine.nets import fairseq
from engine.nets.decoar import FRAMING, MELS, Decoar, Decoar2, decoar2_shape
from engine.nets.wav2vec2 import Shape
from engine.upstream import Card, Upstream
from engine.weights import Checkpoint, renamed

ROOT = "model."
PARTS = ("post_extract_proj.", "forward_lstm.", "backward_lstm.")
PARTS2 = ("post_extract_proj.", "encoder.")
PAPER, PAPER2 = "Ling et al. 2020, arXiv:1912.01679", "Ling and Liu 2020, arXiv:2012.06659"
PROJECTION = f"{ROOT}post_extract_proj.weight"
NAMES = [
    (r"^post_extract_proj\.", "projection."),
    (r"^(forward|backward)_lstm\.(\w+)_l(\d+)$", r"\1s.\3.\2_l0"),
]


def _hears_mel(checkpoint: Checkpoint) -> bool:
    projection = checkpoint.tensors.get(PROJECTION)
    return projection is not None and projection.dim() == 2 and projection.shape[1] == MELS


def _is_decoar(checkpoint: Checkpoint) -> bool:
    return _hears_mel(checkpoint) and f"{ROOT}forward_lstm.weight_ih_l0" in checkpoint.tensors


def _is_decoar2(checkpoint: Checkpoint) -> bool:
    return _hears_mel(checkpoint) and f"{ROOT}encoder.pos_conv.0.weight_v" in checkpoint.tensors


def _sizes(checkpoint: Checkpoint) -> tuple[int, int]:
    """Width and layers."""
    layers = [re.fullmatch(r"model\.forward_lstm\.weight_ih_l(\d+)", name) for name in checkpoint.tensors]
    return len(checkpoint.tensors[PROJECTION]), sum(found is not None for found in layers)


def _numbers(checkpoint: Checkpoint, parts: tuple[str, ...]) -> int:
    """How many numbers of the file compute; what weight normalisation keeps apart is no number more."""
    held = checkpoint.under(ROOT).items()
    return sum(tensor.numel() for name, tensor in held if name.startswith(parts) and not name.endswith("weight_g"))


def _describe(checkpoint: Checkpoint) -> Card:
    width, layers = _sizes(checkpoint)
    return Card(
        name="",
        family="DeCoAR",
        layers=layers,
        dims=(width, *(2 * width,) * layers),
        hop=FRAMING.hop,
        shortest=FRAMING.window,
        about="A checkpoint of DeCoAR.",
        paper=PAPER,
        parameters=_numbers(checkpoint, PARTS),
    )


def _build(card: Card, checkpoint: Checkpoint) -> Upstream:
    return Decoar(card, *_sizes(checkpoint))


def _weights(checkpoint: Checkpoint) -> tuple[Mapping[str, Tensor], Sequence[str]]:
    held = checkpoint.under(ROOT)
    given = {name: tensor for name, tensor in held.items() if name.startswith(PARTS)}
    return renamed(given, NAMES), sorted(f"{ROOT}{name}" for name in held.keys() - given.keys())


def _shape2(checkpoint: Checkpoint) -> Shape:
    held = checkpoint.under(f"{ROOT}encoder.")
    dim = len(checkpoint.tensors[PROJECTION])
    layers = sum(name.endswith(".fc1.weight") for name in held)
    kernel = held["pos_conv.0.weight_v"]
    if layers == 0 or kernel.dim() != 3 or dim % kernel.shape[1]:
        raise Refused(f"'{checkpoint.file}' begins like a DeCoAR 2.0, but its Transformer is not whole.")
    return decoar2_shape(dim, layers, len(held["layers.0.fc1.weight"]), kernel.shape[2], groups=dim // kernel.shape[1])


def _describe2(checkpoint: Checkpoint) -> Card:
    card = fairseq.describe(_shape2(checkpoint), "DeCoAR 2.0", "A checkpoint of DeCoAR 2.0.")
    return replace(card, taps=(), paper=PAPER2, parameters=_numbers(checkpoint, PARTS2))


def _build2(card: Card, checkpoint: Checkpoint) -> Upstream:
    return Decoar2(card, _shape2(checkpoint))


def _weights2(checkpoint: Checkpoint) -> tuple[Mapping[str, Tensor], Sequence[str]]:
    return fairseq.read_weights(checkpoint, ROOT, _shape2(checkpoint), PARTS2)


SERVER = "https://speech-representation.s3.us-west-2.amazonaws.com/"
FACTS: dict[str, Any] = dict(license="Apache-2.0", data="LibriSpeech, 960 h", languages=("en",))
KNOWN = Card(
    name="author:decoar",
    family="DeCoAR",
    layers=4,
    dims=(1024, *(2048,) * 4),
    hop=FRAMING.hop,
    shortest=FRAMING.window,
    source=f"{SERVER}checkpoint_decoar.pt",
    about="DeCoAR: LSTMs in both directions that learnt to tell the frames between two ends.",
    paper=PAPER,
    parameters=67_257_344,
    **FACTS,
)
KNOWN2 = replace(
    fairseq.describe(
        decoar2_shape(768, 12, 3072, 128),
        "DeCoAR 2.0",
        "DeCoAR 2.0: hidden frames are told through a quantizer, by a Transformer.",
    ),
    name="author:decoar2",
    source=f"{SERVER}checkpoint_decoar2.pt",
    paper=PAPER2,
    parameters=89_837_568,
    taps=(),
    **FACTS,
)
DECOAR = Layout(
    name="DeCoAR, as its authors save it",
    prefix="author",
    recognises=_is_decoar,
    describe=_describe,
    build=_build,
    weights=_weights,
    published=(KNOWN,),
)
DECOAR2 = Layout(
    name="DeCoAR 2.0, as its authors save it",
    prefix="author",
    recognises=_is_decoar2,
    describe=_describe2,
    build=_build2,
    weights=_weights2,
    published=(KNOWN2,),
)
