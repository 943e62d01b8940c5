"""w2v-BERT 2.0 (Seamless Communication 2023, arXiv:2312.05187): Conformer blocks over log mel energies.

The sound is brought to 80 Kaldi mel energies each 10 ms, normalised over the clip, and two of these make a frame, as the
feature extractor of SeamlessM4T does it; but in torch, so that a gradient reaches the sound. That extractor fills an odd
number of mel frames up with zeros and masks the frame that this makes; here it is not made.
State 0 is the projected feature, which goes into the first block.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from engine import upstream
from engine.errors import Refused
from engine.nets import conformer
from engine.nets.conformer import Conformer, Positions
from engine.nets.spectra import Kaldi
from engine.upstream import Card, Hidden, Upstream
from engine.weights import renamed

POSITIONS: dict[str | None, Positions] = {"relative_key": "key", "relative": "relative", "rotary": "rotary", None: ""}


class Wav2Vec2Bert(Upstream):
    """The network."""

    def __init__(self, card: Card, shape: conformer.Shape, mels: int, stride: int) -> None:
        super().__init__()
        self.card = card
        self.stride = stride
        self.front = Kaldi(mels)
        self.projection_norm = nn.LayerNorm(mels * stride, shape.epsilon)
        self.projection = nn.Linear(mels * stride, shape.dim)
        self.encoder = Conformer(shape)

    def frames(self, samples: int) -> int:
        return self.front.framing.frames(samples) // self.stride

    def forward(self, wavs: list[Tensor], attention: bool) -> Hidden:
        features = [self._feature(wav.to(self.device)) for wav in wavs]
        lengths = [len(feature) for feature in features]
        hidden: Hidden = self.encoder(self.projection(self.projection_norm(torch.cat(features))), lengths, attention)
        return hidden

    def _feature(self, wav: Tensor) -> Tensor:
        mels: Tensor = self.front(wav * 2.0**15).double()  # so that silence, less its mean, is zero and not rounding noise
        mels = (mels - mels.mean(dim=0)) / (mels.var(dim=0) + 1e-7).sqrt()
        return mels[: len(mels) // self.stride * self.stride].reshape(-1, mels.shape[1] * self.stride).float()


def describe(config: Mapping[str, Any], preprocessor: Mapping[str, Any], where: str) -> Card:
    """What the configuration says of the network."""
    shape = _read_shape(config, where)
    mels, stride = _read_front(config, preprocessor, where)
    framing = Kaldi(mels).framing
    return Card(
        name="",
        family="",
        layers=shape.layers,
        dims=(shape.dim,) * (shape.layers + 1),
        hop=stride * framing.hop,
        # The deviation over a clip needs two mel frames.
        shortest=framing.window + (max(stride, 2) - 1) * framing.hop,
        attention=True,
    )


def build(card: Card, config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> Upstream:
    """The network as it is before it has learnt anything."""
    return Wav2Vec2Bert(card, _read_shape(config, card.name), *_read_front(config, preprocessor, card.name))


def weights(held: Mapping[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Tensor], Sequence[str]]:
    """The weights under the network's names. Adapters and heads come after the last state."""
    bare = {name.removeprefix("wav2vec2_bert."): name for name in held}
    parts = ("feature_projection.", "encoder.layers.")
    taken = {ours: held[name] for ours, name in bare.items() if ours.startswith(parts)}
    return conformer.flat(renamed(taken, conformer.NAMES)), sorted(bare.keys() - taken.keys())


def _read_front(config: Mapping[str, Any], preprocessor: Mapping[str, Any], where: str) -> tuple[int, int]:
    """Mel energies in each 10 ms, and how many of these make a frame."""
    rate = preprocessor.get("sampling_rate", upstream.SAMPLE_RATE)
    if rate != upstream.SAMPLE_RATE:
        raise Refused(f"'{where}' was trained at {rate} Hz; only models for {upstream.SAMPLE_RATE} Hz can be used.")
    mels, stride = preprocessor.get("num_mel_bins", 80), preprocessor.get("stride", 2)
    given = config.get("feature_projection_input_dim", 160)
    if not (isinstance(mels, int) and isinstance(stride, int) and min(mels, stride) > 0 and mels * stride == given):
        raise Refused(
            f"'{where}' hears {mels} mel energies, {stride} times in a frame, but its network takes {given} numbers."
        )
    return mels, stride


def _read_shape(config: Mapping[str, Any], where: str) -> conformer.Shape:
    """The blocks that a configuration describes; what it leaves out has the defaults of transformers."""
    get = config.get
    positions = get("position_embeddings_type", "relative_key")
    if positions not in POSITIONS:
        raise Refused(f"'{where}' tells positions by '{positions}'; relative_key, relative and rotary ones can be used.")
    try:
        return conformer.Shape(
            dim=int(get("hidden_size", 1024)),
            layers=int(get("num_hidden_layers", 24)),
            heads=int(get("num_attention_heads", 16)),
            inner=int(get("intermediate_size", 4096)),
            kernel=int(get("conv_depthwise_kernel_size", 31)),
            causal=True,
            positions=POSITIONS[positions],
            furthest=(int(get("left_max_position_embeddings", 64)), int(get("right_max_position_embeddings", 8))),
            rotary_base=float(get("rotary_embedding_base", 10_000)),
            activation=str(get("hidden_act", "swish")),
            epsilon=float(get("layer_norm_eps", 1e-5)),
        )
    except (TypeError, ValueError) as error:
        raise Refused(f"The configuration of '{where}' does not describe a usable model: {error}") from error
