"""wav2vec and vq-wav2vec as fairseq saves them, or as S3PRL converts them: settings to a shape, names of weights to ours."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from engine.errors import Refused
from engine.nets.conv_strings import parse
from engine.nets.wav2vec import Shape
from engine.weights import Checkpoint, renamed

LARGEST = 2**14  # of any width or number of entries
PARTS = ("feature_extractor.", "feature_aggregator.", "vector_quantizer.")
ROOTS = {"author": "model.", "s3prl": "model_weight."}

NAMES = [
    (r"^feature_extractor\.conv_layers\.(\d+)\.0\.", r"encoder.\1."),
    (r"^feature_extractor\.conv_layers\.(\d+)\.2\.", r"encoder.\1.norm."),
    (r"^feature_aggregator\.conv_layers\.(\d+)\.1\.", r"aggregator.\1."),
    (r"^feature_aggregator\.conv_layers\.(\d+)\.3\.", r"aggregator.\1.norm."),
    (r"^feature_aggregator\.residual_proj\.(\d+)\.", r"aggregator.\1.residual."),
    (r"^vector_quantizer\.(?:vars|embedding)$", "quantizer.vectors"),
    (r"^vector_quantizer\.projection\.0\.", "quantizer.project."),
    (r"^vector_quantizer\.projection\.1\.", "quantizer.norm."),
    (r"^vector_quantizer\.weight_proj\.(\d+)\.(?:0\.)?", r"quantizer.scores.\1."),
    (r"^vector_quantizer\.weight_proj\.", "quantizer.scores.0."),
]


def recognises(checkpoint: Checkpoint, layout: str) -> bool:
    """An encoder and an aggregator are there under fairseq's names; wav2vec 2.0 has no aggregator."""
    root = ROOTS[layout]
    parts = ("feature_extractor.conv_layers.0.0.weight", "feature_aggregator.conv_layers.0.1.weight")
    return {f"{root}{part}" for part in parts} <= checkpoint.tensors.keys()


def settings(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """What the file says of its network, wherever it says it."""
    facts = checkpoint.facts
    kept = facts.get("cfg")
    for found in (facts.get("model_cfg"), kept.get("model") if isinstance(kept, Mapping) else None, facts.get("args")):
        if isinstance(found, Mapping):
            return found
    raise Refused(f"'{checkpoint.file}' holds weights of wav2vec but no settings that say how they belong together.")


def shape(checkpoint: Checkpoint) -> Shape:
    """The architecture that the settings describe."""
    read = _Settings(checkpoint)
    kind = read.word("aggregator", "cnn")
    if kind != "cnn":
        raise Refused(f"'{checkpoint.file}' has an aggregator of the kind '{kind}'; the kind 'cnn' can be read.")
    convolutions = read.layers("conv_feature_layers")
    aggregator = read.layers("conv_aggregator_layers")
    if any(stride != 1 for _, _, stride in aggregator):
        raise Refused(f"'{checkpoint.file}' has an aggregator that leaves out frames: strides of 1 are expected.")
    activation = read.word("activation", "relu")
    if activation not in ("relu", "gelu"):
        raise Refused(f"'{checkpoint.file}' has activation '{activation}'; what can be read is relu and gelu.")
    channels = convolutions[-1][0]
    quantizer = read.word("vq_type", "none").removeprefix("none")
    width = read.size("vq_dim", 0, least=0) or channels
    books = read.size("vq_groups", 2) if quantizer else 0
    if quantizer not in ("", "gumbel", "kmeans"):
        raise Refused(f"'{checkpoint.file}' has a quantizer '{quantizer}'; what can be read is gumbel and kmeans.")
    if quantizer and (width % books or width != channels):
        raise Refused(f"'{checkpoint.file}' has {books} codebooks of {width} channels together, where {channels} go in.")
    return Shape(
        convolutions=convolutions,
        aggregator=tuple((outputs, kernel) for outputs, kernel, _ in aggregator),
        logarithm=read.switch("log_compression"),
        aggregator_skips=read.switch("skip_connections_agg"),
        encoder_skips=read.switch("skip_connections_feat", False),
        skip_scale=read.number("residual_scale", 0.5),
        bias=not read.switch("no_conv_bias", False),
        zeros=read.switch("agg_zero_pad", False),
        affine=not read.switch("non_affine_group_norm", False),
        activation=activation,
        quantizer=quantizer,
        codebooks=books,
        entries=read.size("vq_vars", 320) if quantizer else 0,
        quantizer_depth=read.size("vq_depth", 1) if quantizer == "gumbel" else 1,
        shared=bool(quantizer) and read.switch("combine_groups", False),
    )


def named(checkpoint: Checkpoint, layout: str) -> tuple[dict[str, Tensor], list[str]]:
    """The weights under our names and in our layout, and the names that are left out: what predicts the future."""
    root = ROOTS[layout]
    held = {name: tensor for name, tensor in checkpoint.under(root).items() if name.startswith(PARTS)}
    ours = renamed(held, NAMES)
    for name, tensor in ours.items():
        if name.startswith(("encoder.", "aggregator.")) and tensor.dim() == 3:
            ours[name] = tensor.transpose(1, 2).flatten(1)
    return ours, sorted(checkpoint.tensors.keys() - {f"{root}{name}" for name in held})


class _Settings:
    """Settings of a file, each of the kind that it should have.

    Where versions of fairseq disagree on what is meant by a setting that is not there, it must be there.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.file, self.held = checkpoint.file, settings(checkpoint)

    def layers(self, name: str) -> tuple[tuple[int, int, int], ...]:
        found = parse(self._given(name))
        if not found or any(len(layer) != 3 or max(layer) > LARGEST for layer in found):
            raise Refused(f"'{self.file}' has {name} {found}; channels, kernel and stride of each layer are expected.")
        return found  # type: ignore[return-value]

    def switch(self, name: str, default: bool | None = None) -> bool:
        value = self.held.get(name, default) if default is not None else self._given(name)
        if not isinstance(value, bool):
            raise self._wrong(name, value, "true or false")
        return value

    def size(self, name: str, default: int, least: int = 1) -> int:
        value = self.held.get(name, default)
        if type(value) is not int or not least <= value <= LARGEST:
            raise self._wrong(name, value, f"a whole number from {least} to {LARGEST}")
        return value

    def number(self, name: str, default: float) -> float:
        value = self.held.get(name, default)
        if not isinstance(value, int | float) or not 0 < value < 100:
            raise self._wrong(name, value, "a number above 0")
        return float(value)

    def word(self, name: str, default: str) -> str:
        return str(self.held.get(name, default))

    def _given(self, name: str) -> Any:
        if name not in self.held:
            raise Refused(f"'{self.file}' does not say {name}, which versions of fairseq take to be different things.")
        return self.held[name]

    def _wrong(self, name: str, value: Any, expected: str) -> Refused:
        return Refused(f"'{self.file}' has {name} {value!r}; {expected} is expected.")
