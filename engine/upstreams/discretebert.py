"""DiscreteBERT: BERT as fairseq saves it, or as S3PRL converts it, over the codes of a vq-wav2vec that lies beside it.

What the words of BERT's dictionary are is told by `dict.txt` beside fairseq's file; S3PRL's file holds that itself.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from engine import weights as files
from engine.checkpoint import Layout
from engine.errors import Refused
from engine.nets import wav2vec_file
from engine.nets.code_bert import CodeBERT, Shape
from engine.nets.wav2vec import Shape as Coder
from engine.settings import settings
from engine.upstream import Card, Upstream
from engine.weights import Checkpoint, renamed

PAPER = "Baevski et al. 2019, arXiv:1911.03912"
CODER = "vq-wav2vec_kmeans.pt"
DICTIONARY = "dict.txt"
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # stand before the words of every dictionary; "<mask>" comes last
MOST_PAIRS = 2**24  # combinations of codes
ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "gelu_fast": "gelu_new", "gelu_accurate": "gelu_new"}

NAMES = [
    (r"^(?:encoder|decoder)\.sentence_encoder\.", ""),
    (r"^embed_tokens\.", "words."),
    (r"^embed_positions\.", "places."),
    (r"^(?:layernorm_embedding|emb_layer_norm)\.", "norm."),
    (r"^layers\.(\d+)\.self_attn\.", r"blocks.\1.attention."),
    (r"^layers\.(\d+)\.(?:self_attn_layer_norm|layer_norms\.0)\.", r"blocks.\1.attention_norm."),
    (r"^layers\.(\d+)\.(?:final_layer_norm|layer_norms\.1)\.", r"blocks.\1.feed_norm."),
    (r"^layers\.(\d+)\.fc1\.", r"blocks.\1.widen."),
    (r"^layers\.(\d+)\.fc2\.", r"blocks.\1.narrow."),
    (r"\.attention\.(query|key|value|out)_proj\.", r".attention.\1."),
    (r"\.attention\.q_proj\.", ".attention.query."),
    (r"\.attention\.k_proj\.", ".attention.key."),
    (r"\.attention\.v_proj\.", ".attention.value."),
]
KEPT = ("words.weight", "places.weight", "norm.", "blocks.")


def recognises(prefix: str, checkpoint: Checkpoint) -> bool:
    """A sentence encoder of fairseq's RoBERTa."""
    root = wav2vec_file.ROOTS[prefix]
    words = {f"{root}{half}.sentence_encoder.embed_tokens.weight" for half in ("encoder", "decoder")}
    return not words.isdisjoint(checkpoint.tensors)


def beside(file: Path) -> list[Path]:
    """The other files that make such a pipeline: the vq-wav2vec and the dictionary, as far as they are there."""
    return [found for found in (_coder_file(file), file.with_name(DICTIONARY)) if found.exists()]


def _coder_file(file: Path) -> Path:
    near = file.with_name(CODER)
    return near if near.exists() else settings().downloads / "author" / CODER


def _coder(checkpoint: Checkpoint) -> tuple[Coder, dict[str, Tensor], list[str]]:
    """The vq-wav2vec whose codes are read: its shape, the weights that are needed of it, and the names of the others."""
    file = _coder_file(checkpoint.file)
    if not file.exists():
        raise Refused(
            f"'{checkpoint.file}' reads the codes of a vq-wav2vec, which is not here: put {CODER} beside it, "
            f"or fetch author:{Path(CODER).stem}."
        )
    found = files.read(file)
    layout = next((layout for layout in wav2vec_file.ROOTS if wav2vec_file.recognises(found, layout)), None)
    if layout is None:
        raise Refused(f"'{file}' is no vq-wav2vec, whose codes '{checkpoint.file}' reads.")
    shape = wav2vec_file.shape(found)
    if not shape.quantizer or shape.entries**shape.codebooks > MOST_PAIRS:
        raise Refused(f"'{file}' has no codebooks that '{checkpoint.file}' could read.")
    given, unused = wav2vec_file.named(found, layout)
    needed = {name: tensor for name, tensor in given.items() if not name.startswith("aggregator.")}
    return shape, needed, [f"{file.name}: {name}" for name in (*unused, *sorted(given.keys() - needed.keys()))]


def _words(checkpoint: Checkpoint) -> list[str]:
    """The words of the dictionary, in order."""
    text = checkpoint.facts.get("text_dictionary")
    if not isinstance(text, str):
        file = checkpoint.file.with_name(DICTIONARY)
        if not file.exists():
            raise Refused(
                f"'{checkpoint.file}' is BERT over codes, but {DICTIONARY}, its dictionary, does not lie beside it."
            )
        text = file.read_text("utf-8")
    lines = text.rstrip().splitlines()
    words = [*SPECIAL, *(line.removesuffix(" #fairseq:overwrite").rpartition(" ")[0] for line in lines), "<mask>"]
    if not all(words) or len(set(words)) != len(words):
        raise Refused(
            f"The dictionary of '{checkpoint.file}' is damaged: each line should be a word of its own and its count."
        )
    return words


def _numbers(words: Sequence[str], coder: Coder) -> dict[tuple[int, ...], int]:
    """Codes -> the number of the word that stands for them, like "12-305"."""
    found = {}
    for number, word in enumerate(words):
        parts = word.split("-")
        if len(parts) == coder.codebooks and all(part.isdecimal() and int(part) < coder.entries for part in parts):
            found[tuple(int(part) for part in parts)] = number
    if not found:
        raise Refused("The dictionary of this BERT has no word that stands for codes of the vq-wav2vec beside it.")
    return found


def _bert(checkpoint: Checkpoint) -> tuple[dict[str, Tensor], list[str]]:
    """BERT's weights under our names, and the names that are left out: what guesses masked words."""
    root = next(root for root in wav2vec_file.ROOTS.values() if checkpoint.under(root))
    ours = renamed(checkpoint.under(root), NAMES)
    for name in [name for name in ours if ".attention.in_proj_" in name]:  # written before the three were apart
        kind = name.rpartition("_")[2]
        for part, tensor in zip(("query", "key", "value"), ours.pop(name).chunk(3), strict=True):
            ours[f"{name.rpartition('.')[0]}.{part}.{kind}"] = tensor
    given = {name: tensor for name, tensor in ours.items() if name.startswith(KEPT)}
    return given, sorted(ours.keys() - given.keys())


def shape(checkpoint: Checkpoint) -> Shape:
    """BERT's architecture, by its weights and what the settings add; what they leave out has fairseq's defaults."""
    given, _ = _bert(checkpoint)
    known: Any = checkpoint.facts.get("model_cfg") or checkpoint.facts.get("args") or checkpoint.facts.get("cfg") or {}
    known = known.get("model", known)
    if "places.weight" not in given:
        raise Refused(f"'{checkpoint.file}' has no learnt positions, which are expected of BERT over codes.")
    words, dim = given["words.weight"].shape
    depth = len({name.split(".")[1] for name in given if name.startswith("blocks.")})
    heads, activation = known.get("encoder_attention_heads", 12), known.get("activation_fn", "gelu")
    if type(heads) is not int or heads < 1 or dim % heads:
        raise Refused(
            f"'{checkpoint.file}' has {heads!r} attention heads, among which its width of {dim} cannot be divided."
        )
    if activation not in ACTIVATIONS:
        raise Refused(f"'{checkpoint.file}' has activation_fn '{activation}'; what can be read is {', '.join(ACTIVATIONS)}.")
    if not depth or len(given["places.weight"]) < 20:
        raise Refused(f"'{checkpoint.file}' is too small for a BERT: it has {depth} blocks.")
    return Shape(
        words=words,
        places=len(given["places.weight"]),
        dim=dim,
        layers=depth,
        heads=heads,
        inner=len(given.get("blocks.0.widen.weight", ())),
        activation=ACTIVATIONS[activation],
        norm_first=bool(known.get("encoder_normalize_before", False)),
        norm="norm.weight" in given,
        scale=1.0 if known.get("no_scale_embedding", True) else math.sqrt(dim),
    )


def describe(checkpoint: Checkpoint) -> Card:
    """The card of a file."""
    bert, (coder, codes, _) = shape(checkpoint), _coder(checkpoint)
    return Card(
        name="",
        family="DiscreteBERT",
        layers=bert.layers,
        dims=(bert.dim,) * (bert.layers + 1),
        hop=coder.hop,
        shortest=coder.shortest,
        differentiable=False,
        taps=coder.taps,
        window=bert.window * coder.hop / 16_000,
        about="BERT over the codes of vq-wav2vec. No gradient passes a choice of codes.",
        paper=PAPER,
        parameters=sum(tensor.numel() for tensor in (*_bert(checkpoint)[0].values(), *codes.values())),
    )


def build(card: Card, checkpoint: Checkpoint) -> Upstream:
    """The pipeline."""
    coder, _, _ = _coder(checkpoint)
    return CodeBERT(card, coder, shape(checkpoint), _numbers(_words(checkpoint), coder))


def weights(checkpoint: Checkpoint) -> tuple[Mapping[str, Tensor], Sequence[str]]:
    """Both networks, without what only their training needed."""
    bert, unused = _bert(checkpoint)
    if len(_words(checkpoint)) != len(bert["words.weight"]):
        raise Refused(
            f"'{checkpoint.file}' knows {len(bert['words.weight'])} words, its dictionary {len(_words(checkpoint))}: "
            "they do not belong together."
        )
    _, codes, others = _coder(checkpoint)
    return {**bert, **codes}, [*unused, *others]


def _layout(name: str, prefix: str, published: tuple[Card, ...] = ()) -> Layout:
    return Layout(
        name=name,
        prefix=prefix,
        recognises=partial(recognises, prefix),
        describe=describe,
        build=build,
        weights=weights,
        beside=beside,
        published=published,
        needs=(f"author:{Path(CODER).stem}",),
    )


FAIRSEQ = _layout("BERT over codes, as fairseq saves it", "author")
CONVERTED = _layout(
    "BERT over codes, as S3PRL converts it",
    "s3prl",
    (
        Card(
            name="s3prl:discretebert",
            family="DiscreteBERT",
            layers=12,
            dims=(768,) * 13,
            hop=160,
            shortest=465,
            source="https://huggingface.co/s3prl/converted_ckpts/resolve/main/vq_wav2vec_kmeans_roberta.pt",
            license="MIT",
            differentiable=False,
            window=20.46,
            about="DiscreteBERT: BERT over the k-means codes of vq-wav2vec, which is fetched with it.",
            paper=PAPER,
            data="LibriSpeech, 960 h",
            languages=("en",),
        ),
    ),
)
