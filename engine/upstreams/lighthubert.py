"""LightHuBERT (Wang et al. 2022, arXiv:2203.15610): a network of which only a part, chosen by a search, is used.

The file holds the whole. Its settings say whether all of it computes (stage 1), or the part that the authors name "base"
or "small". The waveform is always normalised.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from engine.checkpoint import Layout
from engine.errors import Refused
from engine.nets import fairseq
from engine.nets.wav2vec2 import Shape, Wav2Vec2
from engine.upstream import Card, Upstream
from engine.weights import Checkpoint

ROOT = "model."
WHOLE, PRUNED = "student_hubert", "hubert_pruner"
# Width, heads and width of the feed-forward layers of the part that computes, by the list that it was searched in.
PARTS = {"small": (384, 6, 1536), "base": (640, 10, 2560)}
PAPER = "Wang et al. 2022, arXiv:2203.15610"
DEFAULTS: dict[str, Any] = {"extractor_mode": "layer_norm"}  # where LightHuBERT differs from fairseq


def _settings(checkpoint: Checkpoint) -> Mapping[str, Any]:
    return {**DEFAULTS, **fairseq.section(checkpoint, "cfg", "model")}


def _is_lighthubert(checkpoint: Checkpoint) -> bool:
    return fairseq.root(checkpoint) == ROOT and _settings(checkpoint).get("_name") in (WHOLE, PRUNED)


def _whole(checkpoint: Checkpoint) -> Shape:
    return fairseq.read_shape(
        _settings(checkpoint), checkpoint.under(ROOT), f"'{checkpoint.file}'", normalise=True, relative=False
    )


def _shape(checkpoint: Checkpoint) -> Shape:
    whole, settings = _whole(checkpoint), _settings(checkpoint)
    if settings["_name"] == WHOLE:
        return whole
    if whole.position_depth > 1 and not settings.get("prune_encoder_pos_conv", True):
        raise Refused(
            f"'{checkpoint.file}' keeps the positions of the whole network beside a part of it; that is not known."
        )
    listed = str(settings.get("pruner_supernet", "")).lower()
    dim, heads, inner = PARTS["small" if listed.endswith("small.yaml") else "base"]
    if whole.inner % whole.dim or whole.inner // whole.dim != inner // dim or dim > whole.dim:
        raise Refused(f"'{checkpoint.file}' has a width of {whole.dim} and {whole.inner}, of which no part is known.")
    return replace(whole, dim=dim, heads=heads, inner=inner)


def _narrowed(name: str, tensor: Tensor, whole: Shape, dim: int) -> Tensor:
    """The part of one weight: the first of each row and column, of each of the three and of each of the feed-forward's."""
    if name.startswith(("front.", "projection_norm.")):
        return tensor
    if name.startswith("projection."):
        return tensor[:dim]
    if name.startswith("positions."):
        return tensor[:dim, : dim // whole.position_groups] if tensor.dim() == 3 else tensor[:dim]
    if ".down.weight" in name:
        return tensor[:dim, _first(tensor.shape[1], whole.dim, dim)]
    rows = _first(len(tensor), whole.dim, dim)
    return tensor[rows][:, :dim] if tensor.dim() == 2 else tensor[rows]


def _first(length: int, whole: int, part: int) -> Tensor:
    """The first `part` places of every `whole`."""
    places = torch.arange(length)
    return places[places % whole < part]


def _describe(checkpoint: Checkpoint) -> Card:
    shape = _shape(checkpoint)
    card = fairseq.describe(shape, "LightHuBERT", "A checkpoint of LightHuBERT.")
    return replace(card, paper=PAPER, parameters=fairseq.parameters(shape))


def _build(card: Card, checkpoint: Checkpoint) -> Upstream:
    return Wav2Vec2(card, _shape(checkpoint))


def _weights(checkpoint: Checkpoint) -> tuple[Mapping[str, Tensor], Sequence[str]]:
    whole, shape = _whole(checkpoint), _shape(checkpoint)
    given, unused = fairseq.read_weights(checkpoint, ROOT, whole)
    if shape.dim == whole.dim:
        return given, unused
    return {name: _narrowed(name, tensor, whole, shape.dim) for name, tensor in given.items()}, unused


CONVOLUTIONS = ((512, 10, 5), *((512, 3, 2),) * 4, *((512, 2, 2),) * 2)
# Name, sizes, numbers that compute, what it is.
KNOWN = [
    ("small", PARTS["small"], 26_872_832, "the part of 384 numbers and 6 heads that the authors name small"),
    ("base", PARTS["base"], 66_890_752, "the part of 640 numbers and 10 heads that the authors name base"),
    ("stage1", (768, 12, 3072), 94_370_816, "the whole network, distilled from HuBERT Base"),
]


def _known() -> Iterator[Card]:
    for name, (dim, heads, inner), numbers, about in KNOWN:
        yield replace(
            fairseq.describe(Shape(dim, 12, heads, inner, CONVOLUTIONS), "LightHuBERT", f"LightHuBERT: {about}."),
            name=f"author:lighthubert_{name}",
            source=f"https://huggingface.co/mechanicalsea/lighthubert/resolve/main/lighthubert_{name}.pt",
            license="MIT",
            paper=PAPER,
            data="LibriSpeech, 960 h",
            languages=("en",),
            parameters=numbers,
        )


LAYOUT = Layout(
    name="LightHuBERT, as its authors save it",
    prefix="author",
    recognises=_is_lighthubert,
    describe=_describe,
    build=_build,
    weights=_weights,
    published=tuple(_known()),
)
