"""Mockingjay, TERA, AudioALBERT and SpecAugment as S3PRL saves them: one Transformer over spectral features.

States are those of S3PRL, in the same order: the input of the first block, then the output of each. Where the blocks
normalise their input, S3PRL shows each state after a norm of its own that nothing else uses; here it is the state itself.
Its configuration stands under `Upstream_Config`, in older files under `Config`. Clips that are longer than the
configuration's `sequence_length` are cut into equal parts, as S3PRL does; frames that sum to zero are frames like others.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from engine.checkpoint import Layout
from engine.errors import Refused
from engine.nets.frame_transformer import Feature, FrameTransformer, Shape
from engine.nets.spectra import Framing
from engine.upstream import SAMPLE_RATE, Card
from engine.weights import Checkpoint, renamed

NAMES = [
    (r"\.gamma$", ".weight"),  # as TensorFlow calls them; S3PRL reads these too
    (r"\.beta$", ".bias"),
    (r"^input_representations\.spec_transform\.", "transformer.project."),
    (r"^input_representations\.LayerNorm\.", "transformer.norm."),
    (r"^encoder\.layer\.(\d+)\.", r"transformer.blocks.\1."),
    (r"\.attention\.self\.", ".attention."),
    (r"\.attention\.output\.dense\.", ".attention.out."),
    (r"\.attention\.output\.LayerNorm\.", ".attention_norm."),
    (r"\.intermediate\.dense\.", ".widen."),
    (r"\.output\.dense\.", ".narrow."),
    (r"\.output\.LayerNorm\.", ".feed_norm."),
]

# What may be set for each of Kaldi's features.
KALDI = {
    "fbank": {"num_mel_bins", "frame_length", "frame_shift", "use_log_fbank"},
    "mfcc": {"num_mel_bins", "num_ceps", "frame_length", "frame_shift"},
    "spectrogram": {"frame_length", "frame_shift"},
}

PAPERS = {
    "Mockingjay": "Liu et al. 2020, arXiv:1910.12638",
    "TERA": "Liu et al. 2021, arXiv:2007.06028",
    "AudioALBERT": "Chi et al. 2021, arXiv:2005.08575",
    "SpecAugment": "Park et al. 2019, arXiv:1904.08779",
}
ABOUT = {
    "Mockingjay": "Mockingjay: hidden stretches of frames are reconstructed.",
    "TERA": "TERA: frames hidden in time, channel and magnitude are reconstructed.",
    "AudioALBERT": "AudioALBERT: Mockingjay with one block for all.",
    "SpecAugment": "What SpecAugment hides of the features is reconstructed.",
}


def recognises(checkpoint: Checkpoint) -> bool:
    named = any(name.startswith("Transformer.input_representations.spec_transform.") for name in checkpoint.tensors)
    return named and _config(checkpoint) is not None


def describe(checkpoint: Checkpoint) -> Card:
    shape = read_shape(checkpoint)
    family = _family(checkpoint)
    given, _ = weights(checkpoint)
    return Card(
        name="",
        family=family,
        layers=shape.layers,
        dims=(shape.dim,) * (shape.layers + 1),
        hop=shape.feature.framing.hop,
        shortest=shape.feature.framing.shortest,
        attention=True,
        window=shape.longest * shape.feature.framing.hop / SAMPLE_RATE,
        about=ABOUT[family],
        paper=PAPERS[family],
        parameters=sum(tensor.numel() for tensor in given.values()),
    )


def build(card: Card, checkpoint: Checkpoint) -> FrameTransformer:
    return FrameTransformer(card, read_shape(checkpoint))


def weights(checkpoint: Checkpoint) -> tuple[Mapping[str, Tensor], Sequence[str]]:
    """Those of the Transformer. The head that reconstructs is no part of it, and a shared block is taken once."""
    shape = read_shape(checkpoint)
    named = {name: next(iter(renamed({name: tensor}, NAMES))) for name, tensor in checkpoint.under("Transformer.").items()}
    ours = {mine: checkpoint.tensors[f"Transformer.{name}"] for name, mine in named.items()}
    given, unused = {}, [name for name in checkpoint.tensors if name.startswith("SpecHead.")]
    for name, mine in named.items():
        first = re.sub(r"^transformer\.blocks\.\d+\.", "transformer.blocks.0.", mine)
        if shape.norm_first and "LayerNorm." in mine:  # second names of norms, and the norms for show
            unused.append(f"Transformer.{name}")
        elif shape.shared and first != mine:
            if first not in ours or not torch.equal(ours[first], ours[mine]):
                raise Refused(f"The blocks in '{checkpoint.file}' differ, though its configuration says that they are one.")
            unused.append(f"Transformer.{name}")
        else:
            given[mine] = ours[mine]
    return given, unused


def read_shape(checkpoint: Checkpoint) -> Shape:
    """The architecture that the file's configuration describes."""
    config = _config(checkpoint) or {}
    network, task = config["transformer"], config.get("task", {})
    if int(network.get("downsample_rate", 1)) != 1:
        raise Refused(f"The model in '{checkpoint.file}' takes several frames as one, which S3PRL itself has given up.")
    try:
        return Shape(
            feature=_feature(config.get("audio"), str(checkpoint.file)),
            dim=int(network["hidden_size"]),
            layers=int(network["num_hidden_layers"]),
            heads=int(network["num_attention_heads"]),
            inner=int(network["intermediate_size"]),
            longest=int(task.get("sequence_length", 0)),
            shared=bool(network.get("share_layer", False)),
            norm_first=bool(network.get("pre_layer_norm", False)),
            activation=str(network["hidden_act"]),
            epsilon=float(network["layer_norm_eps"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(f"The configuration in '{checkpoint.file}' does not describe a Transformer ({error!r}).") from error


def _config(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """The configuration of the network; newer files keep that of the run under the name that older ones had for it."""
    for name in ("Config", "Upstream_Config"):
        config = checkpoint.facts.get(name)
        if isinstance(config, dict) and isinstance(config.get("transformer"), dict):
            return config
    return None


def _family(checkpoint: Checkpoint) -> str:
    config = _config(checkpoint) or {}
    task = config.get("task", {})
    if config["transformer"].get("share_layer"):
        return "AudioALBERT"
    if "mask_T" in task:
        return "SpecAugment"
    return "TERA" if task.get("mask_frequency") or task.get("noise_proportion") else "Mockingjay"


def _feature(audio: Any, file: str) -> Feature:
    if not isinstance(audio, dict):
        raise Refused(f"The model in '{file}' takes features that were computed elsewhere, so it cannot hear a waveform.")
    if "kaldi" in audio:
        return _kaldi(audio, file)
    taken = audio["input"]
    if taken["feat_type"] not in {"mel", "linear"}:
        raise Refused(f"The model in '{file}' takes '{taken['feat_type']}' features; mel and linear ones can be computed.")
    rate = int(audio.get("sample_rate", SAMPLE_RATE))
    if rate != SAMPLE_RATE:
        raise Refused(f"The model in '{file}' takes sound of {rate} Hz; only {SAMPLE_RATE} Hz can be given.")
    return Feature(
        "centred",
        Framing(
            window=_samples(audio.get("win_ms", 25)),
            hop=_samples(audio.get("hop_ms", 10)),
            fft=2 * (int(audio.get("n_freq", 201)) - 1),
            shape="periodic hann",
            centred=True,
        ),
        mels=int(audio.get("n_mels", 40)) if taken["feat_type"] == "mel" else 0,
        logarithm=bool(taken.get("log", False)),
        deltas=int(taken.get("delta", 0)),
        normalised=bool(taken.get("cmvn", False)),
        level=float(audio["target_level"]),
    )


def _kaldi(audio: dict[str, Any], file: str) -> Feature:
    kind = str(audio["kaldi"].get("feat_type", "fbank"))
    options = audio["kaldi"].get(kind, {})
    slopes = audio.get("delta", {})
    strange = sorted(options.keys() - KALDI.get(kind, set()))
    if kind not in KALDI or strange or not options.get("use_log_fbank", True) or slopes.get("win_length", 5) != 5:
        raise Refused(
            f"The model in '{file}' takes '{kind}' features of Kaldi with settings that cannot be computed here"
            f"{': ' + ', '.join(strange) if strange else ''}."
        )
    window = _samples(options.get("frame_length", 25.0))
    return Feature(
        "kaldi",
        Framing(window=window, hop=_samples(options.get("frame_shift", 10.0)), fft=1 << (window - 1).bit_length()),
        mels=0 if kind == "spectrogram" else int(options.get("num_mel_bins", 23)),
        cepstra=int(options.get("num_ceps", 13)) if kind == "mfcc" else 0,
        deltas=int(slopes.get("order", 2)),
        normalised=bool(audio.get("cmvn", {}).get("use_cmvn", True)),
    )


def _samples(milliseconds: Any) -> int:
    return round(float(milliseconds) * SAMPLE_RATE / 1000)


def _published(name: str, address: str, hours: int, *, layers: int = 3, window: float = 15.0, bytes: int = 0) -> Card:
    """A checkpoint trained on LibriSpeech, 768 wide; its family is how its name begins."""
    family = next(family for family in ABOUT if name.replace("_", "").startswith(family.lower()))
    kaldi = "fbank" in name
    blocks = 1 if family == "AudioALBERT" else layers
    return Card(
        name=f"s3prl:{name}",
        family=family,
        layers=layers,
        dims=(768,) * (layers + 1),
        hop=160,
        shortest=400 if kaldi else 201,
        source=address,
        attention=True,
        window=window,
        about=ABOUT[family],
        paper=PAPERS[family],
        data=f"LibriSpeech, {hours} h",
        languages=("en",),
        parameters=768 * (240 if kaldi else 80) + 3 * 768 + blocks * 7_087_872,
        bytes=bytes,
    )


HUB = "https://huggingface.co/s3prl"
BOX = "https://www.dropbox.com/s"
LARGE = "mockingjay_logMelLinearLarge_T_AdamW_b32_500k_360hr_drop1"
TERA = "tera_logMelBase_T_F_M_AdamW_b32_1m_960hr_drop1"
ALBERT = "audio_albert_logMelBase_T_share_AdamW_b32_1m_960hr_drop1"
MEGABYTE = 1_000_000

LAYOUT = Layout(
    name="a Transformer of S3PRL (Mockingjay, TERA, AudioALBERT, SpecAugment)",
    prefix="s3prl",
    recognises=recognises,
    describe=describe,
    build=build,
    weights=weights,
    published=(
        _published(
            "mockingjay",
            f"{HUB}/mockingjay/resolve/main/{LARGE}/states-500000.ckpt",
            360,
            layers=12,
            window=5.0,
            bytes=1030 * MEGABYTE,
        ),
        _published("mockingjay_100hr", f"{BOX}/luorglf8mdg67l2/states-200000.ckpt?dl=1", 100),
        _published("mockingjay_960hr", f"{BOX}/7f9z6dzc7oix6qv/states-1000000.ckpt?dl=1", 960),
        _published("mockingjay_logMelBase_T_AdamW_b32_1m_960hr", f"{BOX}/jzx0xggk663jev6/states-1000000.ckpt?dl=1", 960),
        _published(
            "mockingjay_logMelBase_T_AdamW_b32_1m_960hr_seq3k",
            f"{BOX}/qnnvdrai2tfmjmh/states-1000000.ckpt?dl=1",
            960,
            window=30.0,
        ),
        _published("tera", f"{HUB}/tera/resolve/main/{TERA}/states-1000000.ckpt", 960, bytes=264 * MEGABYTE),
        _published("tera_100hr", f"{BOX}/l9ryl82k64m1lsk/states-200000.ckpt?dl=1", 100),
        _published("tera_logMelBase_T_F_AdamW_b32_200k_100hr", f"{BOX}/o36qt1zgtn3tsep/states-200000.ckpt?dl=1", 100),
        _published("tera_logMelBase_T_F_AdamW_b32_1m_960hr", f"{BOX}/98olxex0m7oy9ta/states-1000000.ckpt?dl=1", 960),
        _published("tera_logMelBase_T_F_AdamW_b32_1m_960hr_drop1", f"{BOX}/2ekbt2gxlkbvfz0/states-1000000.ckpt?dl=1", 960),
        _published(
            "tera_logMelBase_T_F_AdamW_b32_1m_960hr_seq3k",
            f"{BOX}/tfysinbalpm3gsj/states-1000000.ckpt?dl=1",
            960,
            window=30.0,
        ),
        _published("tera_fbankBase_T_F_AdamW_b32_200k_100hr", f"{BOX}/i32ob29m6afufot/states-200000.ckpt?dl=1", 100),
        _published("audio_albert", f"{HUB}/audio_albert/resolve/main/{ALBERT}/states-1000000.ckpt", 960),
    ),
)
