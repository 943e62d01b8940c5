"""wav2vec and vq-wav2vec as fairseq saves them, and as S3PRL converts them.

State 0 comes out of the encoder. In vq-wav2vec state 1 comes out of the quantizer; then there is one of each layer of
the aggregator.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor

from engine.checkpoint import Layout
from engine.nets import wav2vec_file
from engine.nets.wav2vec import Shape, Wav2Vec
from engine.upstream import Card, Upstream
from engine.weights import Checkpoint

WAV2VEC = "Schneider et al. 2019, arXiv:1904.05862"
VQ_WAV2VEC = "Baevski et al. 2019, arXiv:1910.05453"
ABOUT = {
    "": "wav2vec; state 0 comes out of its encoder, the others out of the layers of its aggregator.",
    "gumbel": "vq-wav2vec with a Gumbel quantizer, which gives state 1 and lets no gradient pass.",
    "kmeans": "vq-wav2vec with a k-means quantizer, which gives state 1.",
}

# The architectures of the papers.
ENCODER = ((512, 10, 5), (512, 8, 4), *((512, 4, 2),) * 3)
AGGREGATOR = tuple((512, kernel) for kernel in range(2, 14))
LARGE = Shape((*ENCODER, *((512, 1, 1),) * 2), AGGREGATOR, logarithm=True, aggregator_skips=True)
GUMBEL, KMEANS = (
    Shape(
        (*ENCODER, *((512, 1, 1),) * 3),
        AGGREGATOR,
        logarithm=True,
        aggregator_skips=True,
        quantizer=kind,
        codebooks=2,
        entries=320,
    )
    for kind in ("gumbel", "kmeans")
)


def card(shape: Shape) -> Card:
    """What follows from an architecture."""
    return Card(
        name="",
        family="vq-wav2vec" if shape.quantizer else "wav2vec",
        layers=shape.layers,
        dims=shape.dims,
        hop=shape.hop,
        shortest=shape.shortest,
        differentiable=shape.quantizer != "gumbel",
        taps=shape.taps,
        about=ABOUT[shape.quantizer],
        paper=VQ_WAV2VEC if shape.quantizer else WAV2VEC,
    )


def describe(layout: str, checkpoint: Checkpoint) -> Card:
    """The card of a file."""
    given, _ = wav2vec_file.named(checkpoint, layout)
    return replace(card(wav2vec_file.shape(checkpoint)), parameters=sum(tensor.numel() for tensor in given.values()))


def build(card: Card, checkpoint: Checkpoint) -> Upstream:
    """The network."""
    return Wav2Vec(card, wav2vec_file.shape(checkpoint))


def weights(layout: str, checkpoint: Checkpoint) -> tuple[Mapping[str, Tensor], Sequence[str]]:
    """The encoder, the quantizer and the aggregator; what predicts the future is left out."""
    return wav2vec_file.named(checkpoint, layout)


def _layout(name: str, prefix: str, published: tuple[Card, ...] = ()) -> Layout:
    return Layout(
        name=name,
        prefix=prefix,
        recognises=lambda checkpoint: wav2vec_file.recognises(checkpoint, prefix),
        describe=partial(describe, prefix),
        build=build,
        weights=partial(weights, prefix),
        published=published,
    )


def _published(shape: Shape, file: str, parameters: int = 0) -> Card:
    return replace(
        card(shape),
        name=f"author:{file}",
        source=f"https://dl.fbaipublicfiles.com/fairseq/wav2vec/{file}.pt",
        license="MIT",
        data="LibriSpeech, 960 h",
        languages=("en",),
        parameters=parameters,
    )


FAIRSEQ = _layout(
    "wav2vec or vq-wav2vec, as fairseq saves it",
    "author",
    (
        _published(LARGE, "wav2vec_large", parameters=29_390_848),
        _published(GUMBEL, "vq-wav2vec"),
        _published(KMEANS, "vq-wav2vec_kmeans"),
    ),
)
CONVERTED = _layout("wav2vec or vq-wav2vec, as S3PRL converts it", "s3prl")
