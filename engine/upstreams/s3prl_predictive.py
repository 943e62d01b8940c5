"""APC, VQ-APC and NPC as S3PRL saves them: log mel energies with a Hamming window, predicted from what lies around them.

State 0 is the feature itself; the others are S3PRL's, in its order: for APC the output of each recurrent layer before any
quantizer, for NPC each block and its masked convolution, and the sum of the masked ones at the end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from engine.checkpoint import Layout
from engine.errors import Refused
from engine.nets import apc, npc, quantizer
from engine.nets.spectra import Framing
from engine.upstream import SAMPLE_RATE, Card
from engine.weights import Checkpoint, renamed

NAMES = [
    (r"^vq_layers\.(\d+)\.vq_logits\.", r"quantizer.scores.\1."),
    (r"^rnn_layers\.", "layers."),
    (r"^masked_convs\.(\d+)\.conv_mask$", r"masked.\1.seen"),
    (r"^masked_convs\.(\d+)\.conv\.", r"masked.\1."),
    (r"\.bn1\.", ".first_norm."),
    (r"\.bn2\.", ".second_norm."),
    (r"^ae_bottleneck\.", "bottleneck."),
]
NOT_LEARNT = (".seen", ".running_mean", ".running_var", ".num_batches_tracked")
AUDIO = {"feat_type", "feat_dim", "frame_length", "frame_shift", "decode_wav", "cmvn"}

PAPERS = {
    "APC": "Chung et al. 2019, arXiv:1904.03240",
    "VQ-APC": "Chung et al. 2020, arXiv:2005.08392",
    "NPC": "Liu et al. 2020, arXiv:2011.00406",
}
ABOUT = {
    "APC": "APC: recurrent layers that predict frames to come.",
    "VQ-APC": "VQ-APC: recurrent layers that predict frames to come from codes.",
    "NPC": "NPC: convolutions that predict a frame from those around it.",
}


def recognises_apc(checkpoint: Checkpoint) -> bool:
    return "model.rnn_layers.0.weight_ih_l0" in checkpoint.tensors and _configured(checkpoint)


def recognises_npc(checkpoint: Checkpoint) -> bool:
    return "model.masked_convs.0.conv.weight" in checkpoint.tensors or (
        "model.blocks.0.conv.weight" in checkpoint.tensors and _configured(checkpoint)
    )


def describe_apc(checkpoint: Checkpoint) -> Card:
    shape = read_apc(checkpoint)
    return _card("VQ-APC" if shape.widths else "APC", shape.dims, shape.framing, shape.entries, checkpoint)


def describe_npc(checkpoint: Checkpoint) -> Card:
    shape = read_npc(checkpoint)
    return _card("NPC", shape.dims, shape.framing, shape.entries, checkpoint)


def build_apc(card: Card, checkpoint: Checkpoint) -> apc.APC:
    return apc.APC(card, read_apc(checkpoint))


def build_npc(card: Card, checkpoint: Checkpoint) -> npc.NPC:
    return npc.NPC(card, read_npc(checkpoint))


def weights(checkpoint: Checkpoint) -> tuple[Mapping[str, Tensor], Sequence[str]]:
    """Those that make states and codes; not the layer that predicts, nor the vectors that codes stand for."""
    held = checkpoint.under("model.")
    unused = [name for name in held if name.startswith("postnet.") or ".codebook_CxE." in name]
    given = renamed({name: tensor for name, tensor in held.items() if name not in unused}, NAMES)
    return given, [f"model.{name}" for name in unused]


def read_apc(checkpoint: Checkpoint) -> apc.Shape:
    """The architecture that the file's configuration describes."""
    try:
        sizes, audio = _config(checkpoint)
        codebooks = sizes.get("vq") or {}
        return apc.Shape(
            mels=int(audio["feat_dim"]),
            dim=int(sizes["hidden_size"]),
            layers=int(sizes["num_layers"]),
            framing=_framing(audio, checkpoint),
            residual=bool(sizes["residual"]),
            normalised=bool(audio.get("cmvn", True)),
            widths=tuple(codebooks.get("code_dim", ())),
            entries=tuple(codebooks.get("codebook_size", ())),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Refused(f"The configuration in '{checkpoint.file}' does not describe an APC ({error!r}).") from error


def read_npc(checkpoint: Checkpoint) -> npc.Shape:
    """The architecture that the file's configuration describes."""
    try:
        sizes, audio = _config(checkpoint)
        codebooks = sizes.get("vq") or {}
        return npc.Shape(
            mels=int(audio["feat_dim"]),
            dim=int(sizes["hidden_size"]),
            blocks=int(sizes["n_blocks"]),
            kernel=int(sizes["kernel_size"]),
            mask=int(sizes["mask_size"]),
            framing=_framing(audio, checkpoint),
            residual=bool(sizes["residual"]),
            batch_norm=bool(sizes.get("batch_norm", True)),
            activation=str(sizes.get("activate", "relu")),
            every_block=not sizes.get("disable_cross_layer", False),
            bottleneck=int(sizes.get("dim_bottleneck") or 0),
            normalised=bool(audio.get("cmvn", True)),
            widths=tuple(codebooks.get("code_dim", ())),
            entries=tuple(codebooks.get("codebook_size", ())),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Refused(f"The configuration in '{checkpoint.file}' does not describe an NPC ({error!r}).") from error


def _configured(checkpoint: Checkpoint) -> bool:
    return isinstance(checkpoint.facts.get("config"), dict)


def _config(checkpoint: Checkpoint) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the file says of the network, and of what it is given."""
    config = checkpoint.facts["config"]
    return config["model"]["paras"], config["data"]["audio"]


def _framing(audio: dict[str, Any], checkpoint: Checkpoint) -> Framing:
    strange = sorted(audio.keys() - AUDIO)
    if strange or audio["feat_type"] != "fbank":
        raise Refused(
            f"The model in '{checkpoint.file}' takes '{audio['feat_type']}' features with settings that cannot be computed "
            f"here{': ' + ', '.join(strange) if strange else ''}."
        )
    window = round(float(audio.get("frame_length", 25)) * SAMPLE_RATE / 1000)
    hop = round(float(audio.get("frame_shift", 10)) * SAMPLE_RATE / 1000)
    return Framing(window=window, hop=hop, fft=1 << (window - 1).bit_length(), shape="hamming")


def _card(
    family: str, dims: tuple[int, ...], framing: Framing, entries: Sequence[int], checkpoint: Checkpoint | None = None
) -> Card:
    learnt = weights(checkpoint)[0] if checkpoint else {}
    return Card(
        name="",
        family=family,
        layers=len(dims) - 1,
        dims=dims,
        hop=framing.hop,
        shortest=framing.shortest,
        taps=quantizer.taps(entries, framing.hop),
        about=ABOUT[family],
        paper=PAPERS[family],
        parameters=sum(tensor.numel() for name, tensor in learnt.items() if not name.endswith(NOT_LEARNT)),
    )


def _published(family: str, hours: int, parameters: int, name: str = "") -> Card:
    """A checkpoint trained on LibriSpeech, under S3PRL's name for it."""
    entries = {"APC": (), "VQ-APC": (512,), "NPC": (64,) * 4}
    own = f"{family.lower().replace('-', '_')}_{hours}hr"
    return replace(
        _card(family, (80, *(512,) * (9 if family == "NPC" else 3)), Framing(shape="hamming"), entries[family]),
        name=f"s3prl:{name or own}",
        source=f"https://huggingface.co/leo19941227/apc_series/resolve/main/{own}.ckpt",
        data=f"LibriSpeech, {hours} h",
        languages=("en",),
        parameters=parameters,
    )


APC_LAYOUT = Layout(
    name="an APC or VQ-APC of S3PRL",
    prefix="s3prl",
    recognises=recognises_apc,
    describe=describe_apc,
    build=build_apc,
    weights=weights,
    published=(
        _published("APC", 360, 4_064_256, "apc"),
        _published("APC", 960, 4_064_256),
        _published("VQ-APC", 360, 4_326_912, "vq_apc"),
        _published("VQ-APC", 960, 4_326_912),
    ),
)

NPC_LAYOUT = Layout(
    name="an NPC of S3PRL",
    prefix="s3prl",
    recognises=recognises_npc,
    describe=describe_npc,
    build=build_npc,
    weights=weights,
    published=(_published("NPC", 360, 19_306_752, "npc"), _published("NPC", 960, 19_306_752)),
)
