"""PASE+ as its authors save it (santi-pdp/pase): the weights of the encoder, alone or under `state_dict`.

The settings lie in another file, which is not needed: sizes are those of the weights, and the strides and the length of
the band-pass filters are the same in all that the authors published.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from engine.checkpoint import Layout
from engine.errors import Refused
from engine.nets.pase import FILTER, HOP, STRIDES, Pase, Shape
from engine.upstream import Card, Upstream
from engine.weights import Checkpoint, renamed

LONGEST = 1024  # steps under any convolution of such a network

NAMES = [
    (r"^blocks\.0\.conv\.(low|band)_hz_$", r"bands.\1"),
    (r"^blocks\.0\.", r"bands."),
    (r"^W\.", "out."),
    (r"^norm_out\.", "norm."),
    (r"^denseskips\.", "skips."),
    (r"^rnn\.layers\.0\.linear\.", "gates."),
    (r"\.act\.", ".activation."),
    *((rf"^blocks\.{block}\.", f"blocks.{block - 1}.") for block in range(1, len(STRIDES))),
    (r"\.conv\.", ".convolution."),
]


def recognises(checkpoint: Checkpoint) -> bool:
    """Band-pass filters with learnt edges, and what makes the embedding, under the authors' names."""
    before = _before(checkpoint)
    return {f"{before}blocks.0.conv.low_hz_", f"{before}blocks.0.conv.band_hz_", f"{before}W.weight"} <= (
        checkpoint.tensors.keys()
    )


def _before(checkpoint: Checkpoint) -> str:
    """What stands before the encoder's own names where the state of its training was saved with it."""
    return "state_dict." if "state_dict.blocks.0.conv.low_hz_" in checkpoint.tensors else ""


def shape(checkpoint: Checkpoint) -> Shape:
    """The architecture, from the shapes of the weights."""
    held = checkpoint.under(_before(checkpoint))
    convolutions = [f"blocks.{block}.conv.weight" for block in range(1, len(STRIDES))]
    sizes = {"W.weight": 3, "rnn.layers.0.linear.weight": 2, "blocks.0.conv.low_hz_": 2, **dict.fromkeys(convolutions, 3)}
    for name, dims in sizes.items():
        if name not in held or held[name].dim() != dims or 0 in held[name].shape:
            raise Refused(
                f"'{checkpoint.file}' holds a PASE whose {name} is not that of PASE+: eight blocks, a QRNN of one layer and "
                "an output layer are expected."
            )
    kernels = [held[name].shape[2] for name in convolutions]
    if not all(2 <= kernel <= LONGEST for kernel in kernels):
        raise Refused(f"'{checkpoint.file}' has convolutions over {kernels} steps; from 2 to {LONGEST} are expected.")
    return Shape(
        channels=(held["blocks.0.conv.low_hz_"].shape[0], *(held[name].shape[0] for name in convolutions)),
        kernels=(FILTER, *kernels),
        recurrent=held["rnn.layers.0.linear.weight"].shape[0] // 3,
        width=held["W.weight"].shape[0],
    )


def describe(checkpoint: Checkpoint) -> Card:
    """The card of a file."""
    given = weights(checkpoint)[0]
    learnt = (tensor.numel() for name, tensor in given.items() if not name.endswith(("_mean", "_var", "_tracked")))
    return _card("", shape(checkpoint), parameters=sum(learnt))


def _card(name: str, found: Shape, **known: object) -> Card:
    return Card(
        name=name,
        family="PASE+",
        layers=1,
        dims=(found.channels[-1], found.width),
        hop=HOP,
        shortest=found.shortest,
        taps=found.taps,
        about="PASE+: trained on many small tasks at once, under noise; state 0 comes out of the convolutions.",
        paper="Ravanelli et al. 2020, arXiv:2001.09239",
        **known,  # type: ignore[arg-type]
    )


def build(card: Card, checkpoint: Checkpoint) -> Upstream:
    """The network."""
    return Pase(card, shape(checkpoint))


def weights(checkpoint: Checkpoint) -> tuple[Mapping[str, Tensor], Sequence[str]]:
    """The encoder; what its training needed beside it is left out."""
    held = checkpoint.under(before := _before(checkpoint))
    return renamed(held, NAMES), sorted(name for name in checkpoint.tensors if not name.startswith(before))


LAYOUT = Layout(
    name="PASE+, as santi-pdp/pase saves it",
    prefix="author",
    recognises=recognises,
    describe=describe,
    build=build,
    weights=weights,
    published=(
        _card(
            "author:pase_plus",
            Shape(),
            source="https://www.dropbox.com/s/p8811o7eadv4pat/FE_e199.ckpt?dl=1",
            license="MIT",
            data="LibriSpeech, 50 h",
            languages=("en",),
            parameters=7_832_896,
        ),
    ),
)
