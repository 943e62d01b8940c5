"""Modified CPC as its authors save it (facebookresearch/CPC_audio): settings under `config`, weights under `weights`."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from engine.checkpoint import Layout
from engine.errors import Refused
from engine.nets.cpc import CPC, HOP, RECURRENT, SHORTEST, Shape
from engine.upstream import Card, Upstream
from engine.weights import Checkpoint, renamed

PAPER = "Riviere et al. 2020, arXiv:2002.02848"
LARGEST = 2**13  # layers or channels of any network of this kind

NAMES = [
    (r"^gEncoder\.conv(\d+)\.", r"front.\1.convolution."),
    (r"^gEncoder\.batchNorm(\d+)\.", r"front.\1.norm."),
    (r"^gAR\.baseNet\.(weight|bias)_(ih|hh)_l(\d+)$", r"levels.\3.\1_\2_l0"),
]


def recognises(checkpoint: Checkpoint) -> bool:
    """Both halves of the network are there under their authors' names."""
    return {"weights.gEncoder.conv0.weight", "weights.gAR.baseNet.weight_ih_l0"} <= checkpoint.tensors.keys()


def shape(checkpoint: Checkpoint) -> Shape:
    """The architecture that the settings describe; what they leave out is as in the authors' code."""
    settings = checkpoint.facts.get("config") or {}
    known = Shape(
        channels=_size(checkpoint, "hiddenEncoder", settings.get("hiddenEncoder", 256)),
        width=_size(checkpoint, "hiddenGar", settings.get("hiddenGar", 256)),
        layers=_size(checkpoint, "nLevelsGRU", settings.get("nLevelsGRU", 1)),
        cell=settings.get("arMode", "LSTM"),
        norm=settings.get("normMode", "layerNorm"),
        backwards=settings.get("cpc_mode") == "reverse",
    )
    _one_of(checkpoint, "encoder_type", settings.get("encoder_type", "cpc"), ["cpc"])
    _one_of(checkpoint, "arMode", known.cell, RECURRENT)
    _one_of(checkpoint, "normMode", known.norm, ["layerNorm", "batchNorm", "ID"])
    return known


def _size(checkpoint: Checkpoint, setting: str, value: Any) -> int:
    if type(value) is not int or not 0 < value <= LARGEST:
        raise Refused(f"'{checkpoint.file}' has {setting} {value!r}; a whole number from 1 to {LARGEST} is expected.")
    return value


def _one_of(checkpoint: Checkpoint, setting: str, value: Any, known: Sequence[str] | Mapping[str, Any]) -> None:
    if value not in known:
        raise Refused(f"'{checkpoint.file}' has {setting} '{value}'; what can be read is {', '.join(known)}.")


def describe(checkpoint: Checkpoint) -> Card:
    """The card of a file."""
    found = shape(checkpoint)
    return Card(
        name="",
        family="CPC",
        layers=found.layers,
        dims=(found.channels, *(found.width,) * found.layers),
        hop=HOP,
        shortest=SHORTEST,
        taps=found.taps,
        about="CPC as modified by Riviere et al.; state 0 comes out of the convolutions.",
        paper=PAPER,
        parameters=sum(tensor.numel() for name, tensor in weights(checkpoint)[0].items() if ".running_" not in name),
    )


def build(card: Card, checkpoint: Checkpoint) -> Upstream:
    """The network."""
    return CPC(card, shape(checkpoint))


def weights(checkpoint: Checkpoint) -> tuple[Mapping[str, Tensor], Sequence[str]]:
    """The encoder and the recurrent net; what predicts the future is left out."""
    held = checkpoint.under("weights.")
    given = {name: tensor for name, tensor in held.items() if name.startswith(("gEncoder.", "gAR."))}
    return renamed(given, NAMES), sorted(checkpoint.tensors.keys() - {f"weights.{name}" for name in given})


LAYOUT = Layout(
    name="modified CPC, as CPC_audio saves it",
    prefix="author",
    recognises=recognises,
    describe=describe,
    build=build,
    weights=weights,
    published=(
        Card(
            name="author:modified_cpc",
            family="CPC",
            layers=1,
            dims=(256, 256),
            hop=HOP,
            shortest=SHORTEST,
            source="https://dl.fbaipublicfiles.com/librilight/CPC_checkpoints/60k_epoch4-d0f474de.pt",
            license="MIT",
            taps=Shape().taps,
            about="CPC as modified by Riviere et al., trained on 60,000 h of English audiobooks.",
            paper=PAPER,
            data="Libri-Light, 60,000 h",
            languages=("en",),
            parameters=1_843_456,
        ),
    ),
)
