"""SSAST (Gong et al. 2022): the self-supervised spectrogram Transformer, as its authors save it.

The network is that of AST, over patches of 16 x 16 or over strips of all mels and two frames. As in the authors' code for
downstream tasks, patches begin every 10 mels and frames, strips every frame, so the table of positions is stretched to the
denser grid. Windows, frames, padding and states are AST's.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from engine.checkpoint import Layout
from engine.errors import Refused
from engine.nets.spectrogram_transformer import FRAMING, Shape, SpectrogramTransformer
from engine.upstream import SAMPLE_RATE, Card, Upstream
from engine.weights import Checkpoint, renamed

BEFORE = "module.v."  # what stands before the names of the network; the authors save it in parallel dress
HEAD = 64  # width of an attention head in every network of the kind
STRIDES = {(16, 16): (10, 10), (128, 2): (128, 1)}  # kernel -> strides, each in frequency and time


NAMES = [
    (r"^patch_embed\.proj\.", "patches."),
    (r"^dist_token$", "distillation_token"),
    (r"^pos_embed$", "positions"),
    (r"\.norm1\.", ".attention_norm."),
    (r"\.norm2\.", ".feed_norm."),
    (r"\.attn\.proj\.", ".out."),
    (r"\.mlp\.fc1\.", ".up."),
    (r"\.mlp\.fc2\.", ".down."),
]


def recognises(checkpoint: Checkpoint) -> bool:
    """A Transformer with two tokens in front, and the size of the spectrograms that it was trained on."""
    return {f"{BEFORE}dist_token", f"{BEFORE}pos_embed", "module.p_input_tdim"} <= checkpoint.tensors.keys()


def _trained(checkpoint: Checkpoint) -> tuple[tuple[int, int], tuple[int, int]]:
    """Size of a patch, and of the spectrograms of training, both in frequency and time."""
    patch = checkpoint.tensors.get(f"{BEFORE}patch_embed.proj.weight")
    sizes = [checkpoint.tensors.get(f"module.p_input_{axis}dim") for axis in "ft"]
    kernel = tuple(patch.shape[2:]) if patch is not None else ()
    if kernel not in STRIDES or any(size is None or size.numel() != 1 for size in sizes):
        known = " or ".join(f"{rows} x {steps}" for rows, steps in STRIDES)
        raise Refused(f"'{checkpoint.file}' has patches of {' x '.join(map(str, kernel))}; what can be read is {known}.")
    mels, length = (int(size) for size in sizes if size is not None)
    if mels < kernel[0] or not 8 * kernel[1] <= length <= 2**14:
        raise Refused(
            f"'{checkpoint.file}' was trained on spectrograms of {mels} x {length}: too few patches fit in, or too many."
        )
    return (kernel[0], kernel[1]), (mels, length)


def shape(checkpoint: Checkpoint) -> Shape:
    """The architecture, from the shapes of the weights."""
    kernel, (mels, length) = _trained(checkpoint)
    dim = checkpoint.tensors[f"{BEFORE}pos_embed"].shape[-1]
    blocks = [name for name in checkpoint.tensors if name.startswith(f"{BEFORE}blocks.") and name.endswith("mlp.fc1.bias")]
    if not blocks or dim % HEAD:
        raise Refused(f"'{checkpoint.file}' has {len(blocks)} blocks of width {dim}; a multiple of {HEAD} is expected.")
    return _shape(dim, len(blocks), checkpoint.tensors[blocks[0]].numel(), kernel, mels, length)


def _shape(dim: int, layers: int, inner: int, kernel: tuple[int, int], mels: int = 128, length: int = 1024) -> Shape:
    return Shape(
        dim=dim,
        layers=layers,
        heads=dim // HEAD,
        inner=inner,
        mels=mels,
        length=length,
        patch=kernel,
        strides=STRIDES[kernel],
        activation="gelu",
        epsilon=1e-6,
        bias=True,
        mean=-4.2677393,
        deviation=4.5689974,
    )


def describe(checkpoint: Checkpoint) -> Card:
    """The card of a file."""
    return _card("", shape(checkpoint))


def _card(name: str, found: Shape, **known: str) -> Card:
    rows, steps = found.grid
    block = 4 * (found.dim + 1) * found.dim + 2 * found.dim * found.inner + found.inner + 5 * found.dim
    tokens = (found.patch[0] * found.patch[1] + 1) + 2 + (2 + rows * steps)
    return Card(
        name=name,
        family="SSAST",
        layers=found.layers,
        dims=(found.dim,) * (found.layers + 1),
        hop=found.hop,
        shortest=FRAMING.shortest,
        attention=True,
        window=found.window / SAMPLE_RATE,
        about="SSAST: spectrograms whose hidden pieces are restored and told apart. "
        + (f"A frame is the mean over the {rows} patches of a time step." if rows > 1 else ""),
        paper="Gong et al. 2022, arXiv:2110.09784",
        parameters=tokens * found.dim + found.layers * block,
        **known,  # type: ignore[arg-type]
    )


def build(card: Card, checkpoint: Checkpoint) -> Upstream:
    """The network."""
    return SpectrogramTransformer(card, shape(checkpoint))


def weights(checkpoint: Checkpoint) -> tuple[Mapping[str, Tensor], Sequence[str]]:
    """The network; what training added to it, its classifiers and the norm after the last block are left out."""
    held = checkpoint.under(BEFORE)
    given = {name: tensor for name, tensor in held.items() if not name.startswith(("norm.", "head.", "head_dist."))}
    unused = sorted(checkpoint.tensors.keys() - {BEFORE + name for name in given})
    given["pos_embed"] = _stretched(checkpoint, given["pos_embed"])
    named = renamed(given, NAMES)
    for name in [name for name in named if ".attn.qkv." in name]:
        for part, tensor in zip(("query", "key", "value"), named.pop(name).chunk(3), strict=True):
            named[name.replace("attn.qkv", part)] = tensor
    return named, unused


def _stretched(checkpoint: Checkpoint, table: Tensor) -> Tensor:
    """Positions of the grid of training, between which those of the denser grid lie."""
    kernel, (mels, length) = _trained(checkpoint)
    trained = mels // kernel[0], length // kernel[1]
    if table.shape[:2] != (1, 2 + trained[0] * trained[1]):
        raise Refused(
            f"'{checkpoint.file}' has positions for {table.shape[1] - 2} patches, not {trained[0]} x {trained[1]}."
        )
    grid = table[:, 2:].float().transpose(1, 2).reshape(1, -1, *trained)
    denser = functional.interpolate(grid, size=shape(checkpoint).grid, mode="bilinear").flatten(2).transpose(1, 2)
    return torch.cat([table[:, :2].float(), denser], dim=1)


LAYOUT = Layout(
    name="SSAST, as its authors save it",
    prefix="author",
    recognises=recognises,
    describe=describe,
    build=build,
    weights=weights,
    published=tuple(
        _card(
            f"author:{name}",
            _shape(768, 12, 3072, kernel),
            source=f"https://www.dropbox.com/s/{file}?dl=1",
            license="BSD-3-Clause",
            data="AudioSet and LibriSpeech",
        )
        for name, file, kernel in (
            ("ssast_frame_base", "nx6nl4d4bl71sm8/SSAST-Base-Frame-400.pth", (128, 2)),
            ("ssast_patch_base", "ewrzpco95n9jdz6/SSAST-Base-Patch-400.pth", (16, 16)),
        )
    ),
)
