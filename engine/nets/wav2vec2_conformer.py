"""wav2vec2-Conformer: the front end of wav2vec 2.0 before Conformer blocks (as in fairseq and transformers).

State 0 is the projected front end, which goes into the first block: nothing is added for positions, the blocks know them.
The norm that transformers puts after the last block is in no state.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import Refused
from engine.nets import conformer, wav2vec2, wav2vec2_config
from engine.nets.conformer import Conformer, Positions
from engine.nets.front import Front
from engine.upstream import Card, Hidden, Upstream
from engine.weights import renamed

POSITIONS: dict[str | None, Positions] = {"relative": "relative", "rotary": "rotary", None: ""}


class Wav2Vec2Conformer(Upstream):
    """The network."""

    def __init__(self, card: Card, heard: wav2vec2.Shape, shape: conformer.Shape) -> None:
        super().__init__()
        self.card = card
        self.shape = heard
        channels = heard.convolutions[-1][0]
        self.front = Front(heard)
        self.quantizer = nn.Linear(channels, heard.codebooks * heard.entries) if heard.codebooks else None
        self.projection_norm = nn.LayerNorm(channels, heard.epsilon)
        self.projection = nn.Linear(channels, heard.dim)
        self.encoder = Conformer(shape)

    def frames(self, samples: int) -> int:
        return self.shape.frames(samples)

    def forward(self, wavs: list[Tensor], attention: bool) -> Hidden:
        lengths = [self.frames(wav.numel()) for wav in wavs]
        features = torch.cat([self.front(wav.to(self.device)) for wav in wavs])
        hidden: Hidden = self.encoder(self.projection(self.projection_norm(features)), lengths, attention)
        return hidden

    def tapped(self, wavs: list[Tensor], names: Sequence[str]) -> dict[str, list[Tensor]]:
        clips = [wav.to(self.device) for wav in wavs]
        return {name: [self._tap(clip, name) for clip in clips] for name in names}

    def _tap(self, clip: Tensor, name: str) -> Tensor:
        if name != "codes":
            return self.front(clip, int(name.removeprefix("conv"))).float()  # type: ignore[no-any-return]
        assert self.quantizer is not None
        logits = self.quantizer(self.projection_norm(self.front(clip)))
        return logits.unflatten(1, (self.shape.codebooks, -1)).argmax(dim=2)  # type: ignore[no-any-return]


def describe(config: Mapping[str, Any], preprocessor: Mapping[str, Any], where: str) -> Card:
    """What the configuration says of the network."""
    _read_shape(config, where)
    return wav2vec2_config.describe(config, preprocessor, where)


def build(card: Card, config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> Upstream:
    """The network as it is before it has learnt anything."""
    heard = wav2vec2_config.read_shape(config, preprocessor, card.name)
    return Wav2Vec2Conformer(card, heard, _read_shape(config, card.name))


def weights(held: Mapping[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Tensor], Sequence[str]]:
    """The weights under the network's names. A convolution for positions lies in the file but is never used."""
    heard = wav2vec2_config.read_shape(config, {}, "")
    parts = ["feature_extractor.", "feature_projection.", "encoder.layers."]
    if heard.codebooks:
        parts.append("quantizer.weight_proj.")
    bare = {name.removeprefix("wav2vec2_conformer."): name for name in held}
    taken = {ours: held[name] for ours, name in bare.items() if ours.startswith(tuple(parts))}
    front = {name: tensor for name, tensor in taken.items() if not name.startswith("encoder.")}
    blocks = {name: tensor for name, tensor in taken.items() if name.startswith("encoder.")}
    given = wav2vec2.standard(front, heard) | conformer.flat(renamed(blocks, conformer.NAMES))
    return given, sorted(bare.keys() - taken.keys())


def _read_shape(config: Mapping[str, Any], where: str) -> conformer.Shape:
    """The blocks that a configuration describes; what it leaves out has the defaults of transformers."""
    get = config.get
    positions = get("position_embeddings_type", "relative")
    if positions not in POSITIONS:
        raise Refused(f"'{where}' tells positions by '{positions}'; relative and rotary ones can be used.")
    try:
        return conformer.Shape(
            dim=int(get("hidden_size", 768)),
            layers=int(get("num_hidden_layers", 12)),
            heads=int(get("num_attention_heads", 12)),
            inner=int(get("intermediate_size", 3072)),
            kernel=int(get("conv_depthwise_kernel_size", 31)),
            positions=POSITIONS[positions],
            rotary_base=float(get("rotary_embedding_base", 10_000)),
            activation=str(get("hidden_act", "gelu")),
        )
    except (TypeError, ValueError) as error:
        raise Refused(f"The configuration of '{where}' does not describe a usable model: {error}") from error
