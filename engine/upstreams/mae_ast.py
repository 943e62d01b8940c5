"""MAE-AST (Baade et al. 2022): a Transformer over pieces of a spectrogram, as its authors save it with fairseq.

A piece is a patch of 16 frames by 16 mels, or a frame pair with all its mels. State 0 goes into the first block, positions
added; state i comes out of block i. What stands at one time step is averaged over frequency, and attention maps with it:
a time step's attention is the mean over its patches, and what it gives to another is the sum over the patches of that.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.checkpoint import Layout
from engine.errors import Refused
from engine.nets.clips import together
from engine.nets.describing import describing
from engine.nets.front import ACTIVATIONS
from engine.nets.spectra import Framing, Kaldi
from engine.nets.transformer import Block
from engine.upstream import SAMPLE_RATE, Card, Hidden, Upstream
from engine.weights import Checkpoint, renamed

FRAMING = Framing()
EPSILON = 1e-5  # of every norm


@dataclass(frozen=True)
class Shape:
    """What tells one network of the kind from another."""

    layers: int = 12
    dim: int = 768
    inner: int = 3072
    heads: int = 12
    activation: str = "gelu"
    norm_first: bool = False
    positions: bool = True
    mels: int = 128
    kernel: tuple[int, int] = (16, 16)  # of a patch, in frames and mels
    stride: tuple[int, int] = (16, 16)

    @property
    def rows(self) -> int:
        """Patches at one time step."""
        return (self.mels - self.kernel[1]) // self.stride[1] + 1

    @property
    def hop(self) -> int:
        """Samples from one time step to the next."""
        return self.stride[0] * FRAMING.hop

    @property
    def shortest(self) -> int:
        """Samples that give one time step."""
        return FRAMING.window + (self.kernel[0] - 1) * FRAMING.hop


FRAMES = Shape(kernel=(2, 128), stride=(2, 128))
PATCHES = Shape()


class MaeAst(Upstream):
    """The encoder, clip by clip. The decoder, which only training needs, is left out."""

    def __init__(self, card: Card, shape: Shape) -> None:
        super().__init__()
        self.card = card
        self.shape = shape
        self.fbank = Kaldi(shape.mels)
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("variance", torch.ones(1))
        self.project = nn.Linear(math.prod(shape.kernel), shape.dim)
        self.norm = nn.Identity() if shape.norm_first else nn.LayerNorm(shape.dim, EPSILON)
        self.blocks = nn.ModuleList(
            Block(
                shape.dim,
                shape.heads,
                shape.inner,
                0.0,
                norm_first=shape.norm_first,
                activation=shape.activation,
                epsilon=EPSILON,
            )
            for _ in range(shape.layers)
        )
        self.mean: Tensor
        self.variance: Tensor
        for module in self.modules():
            if isinstance(module, nn.Linear):  # as BERT begins
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def frames(self, samples: int) -> int:
        return (FRAMING.frames(samples) - self.shape.kernel[0]) // self.shape.stride[0] + 1

    def forward(self, wavs: list[Tensor], attention: bool) -> Hidden:
        encoded = [self._encode(wav.to(self.device), attention) for wav in wavs]
        return together([states for states, _ in encoded], [maps for _, maps in encoded] if attention else None)

    def _encode(self, wav: Tensor, attention: bool) -> tuple[list[Tensor], list[Tensor]]:
        x = self._tokens(wav)
        states, maps = [self._steps(x)], []
        for block in self.blocks:
            x, weights = block(x, None, attention)
            states.append(self._steps(x))
            if attention:
                steps = len(states[0])
                split = weights[0].float().view(-1, steps, self.shape.rows, steps, self.shape.rows)
                maps.append(split.sum(dim=4).mean(dim=2))
        return states, maps

    def _tokens(self, wav: Tensor) -> Tensor:
        """What goes into the first block: (1, time steps * rows, dim), the rows of one time step together."""
        shape = self.shape
        spectrum = 0.5 * (self.fbank(wav) - self.mean) / (self.variance + EPSILON).sqrt()
        patches = spectrum.unfold(0, shape.kernel[0], shape.stride[0]).unfold(1, shape.kernel[1], shape.stride[1])
        x = self.project(patches.flatten(2).flatten(0, 1)).float()
        if shape.positions:
            x = x + _positions(len(x), shape.dim, x.device)
        tokens: Tensor = self.norm(x[None])
        return tokens

    def _steps(self, tokens: Tensor) -> Tensor:
        return tokens[0].float().view(-1, self.shape.rows, self.shape.dim).mean(dim=1)


def _positions(count: int, dim: int, device: torch.device) -> Tensor:
    """Sinusoids, sine and cosine in turn; the rates in the authors' way, which decides the last bits far into a clip."""
    rate = torch.exp(torch.arange(0, dim, 2, device=device) * (-math.log(10_000.0) / dim))
    angle = torch.arange(count, device=device)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)


NAMES = [
    (r"^batch_norm\.running_mean$", "mean"),
    (r"^batch_norm\.running_var$", "variance"),
    (r"^post_extract_proj\.", "project."),
    (r"^encoder\.layer_norm\.", "norm."),
    (r"^encoder\.layers\.", "blocks."),
    (r"\.self_attn\.q_proj\.", ".attention.query."),
    (r"\.self_attn\.k_proj\.", ".attention.key."),
    (r"\.self_attn\.v_proj\.", ".attention.value."),
    (r"\.self_attn\.out_proj\.", ".attention.out."),
    (r"\.self_attn_layer_norm\.", ".attention_norm."),
    (r"\.fc1\.", ".widen."),
    (r"\.fc2\.", ".narrow."),
    (r"\.final_layer_norm\.", ".feed_norm."),
]


def recognises(checkpoint: Checkpoint) -> bool:
    """A masked autoencoder of spectrograms: what stands for hidden pieces in its decoder, and the norm of its input."""
    return {"model.decoder_mask_emb", "model.batch_norm.running_mean"} <= checkpoint.tensors.keys()


def shape(checkpoint: Checkpoint) -> Shape:
    """The architecture that the settings describe; what they leave out is as in the authors' code."""
    settings = checkpoint.facts.get("cfg") or {}
    model: Mapping[str, Any] = settings.get("model") or {}
    task: Mapping[str, Any] = settings.get("task") or {}
    with describing(str(checkpoint.file)):
        found = Shape(
            layers=int(model.get("encoder_layers", 12)),
            dim=int(model.get("encoder_embed_dim", 768)),
            inner=int(model.get("encoder_ffn_embed_dim", 3072)),
            heads=int(model.get("encoder_attention_heads", 12)),
            activation=str(model.get("activation_fn", "gelu")),
            norm_first=bool(model.get("layer_norm_first", False)),
            positions=bool(model.get("enc_sine_pos", False)),
            mels=int(task.get("feature_dim", 100)),
            kernel=(int(model.get("ast_kernel_size_time", 16)), int(model.get("ast_kernel_size_chan", 16))),
            stride=(int(model.get("ast_kernel_stride_time", 16)), int(model.get("ast_kernel_stride_chan", 16))),
        )
        sizes = (found.layers, found.dim, found.inner, found.heads, found.rows, *found.kernel, *found.stride)
        if min(sizes) < 1 or found.dim % (2 * found.heads):
            raise ValueError(f"sizes of {sizes} fit no network")
    if found.activation not in ACTIVATIONS:
        raise Refused(
            f"'{checkpoint.file}' has activation_fn '{found.activation}'; what can be read is {', '.join(ACTIVATIONS)}."
        )
    if model.get("enc_conv_pos"):
        raise Refused(f"'{checkpoint.file}' tells positions by a convolution, which no published MAE-AST does.")
    if task.get("sample_rate", SAMPLE_RATE) != SAMPLE_RATE or task.get("feature_type", "fbank") != "fbank":
        raise Refused(f"'{checkpoint.file}' was trained on other sounds than log mel energies at {SAMPLE_RATE} Hz.")
    return found


def describe(checkpoint: Checkpoint) -> Card:
    """The card of a file."""
    return _card("", shape(checkpoint))


def _card(name: str, found: Shape, **known: str) -> Card:
    attention, feed = 4 * (found.dim + 1) * found.dim, 2 * found.dim * found.inner + found.dim + found.inner
    norms = 2 * found.dim * (2 * found.layers + (not found.norm_first))
    return Card(
        name=name,
        family="MAE-AST",
        layers=found.layers,
        dims=(found.dim,) * (found.layers + 1),
        hop=found.hop,
        shortest=found.shortest,
        attention=True,
        about="MAE-AST: spectrograms restored from a quarter of their pieces. "
        + (f"A frame is the mean over the {found.rows} patches of a time step." if found.rows > 1 else ""),
        paper="Baade et al. 2022, arXiv:2203.16691",
        parameters=(math.prod(found.kernel) + 1) * found.dim + found.layers * (attention + feed) + norms,
        **known,  # type: ignore[arg-type]
    )


def build(card: Card, checkpoint: Checkpoint) -> Upstream:
    """The network."""
    return MaeAst(card, shape(checkpoint))


def weights(checkpoint: Checkpoint) -> tuple[Mapping[str, Tensor], Sequence[str]]:
    """The encoder; the decoder, its predictions, the table of positions and a norm after the last block are left out."""
    held = checkpoint.under("model.")
    kept = ["batch_norm.running_", "post_extract_proj.", "encoder.layers."]
    if not shape(checkpoint).norm_first:
        kept.append("encoder.layer_norm.")
    given = {name: tensor for name, tensor in held.items() if name.startswith(tuple(kept))}
    return renamed(given, NAMES), sorted(checkpoint.tensors.keys() - {f"model.{name}" for name in given})


SERVER = "https://www.cs.utexas.edu/~harwath/model_checkpoints/mae_ast/"

LAYOUT = Layout(
    name="MAE-AST, as its authors save it",
    prefix="author",
    recognises=recognises,
    describe=describe,
    build=build,
    weights=weights,
    published=tuple(
        _card(f"author:{name}", found, source=f"{SERVER}{file}", data="AudioSet and LibriSpeech")
        for name, file, found in (
            ("mae_ast_frame", "random_frame_75_12LayerEncoder.pt", FRAMES),
            ("mae_ast_patch", "chunk_patch_75_12LayerEncoder.pt", PATCHES),
        )
    ),
)
