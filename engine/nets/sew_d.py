"""SEW-D: SEW's squeezed frames through DeBERTa's disentangled attention (Wu et al. 2021), as transformers runs it.

State 0 is the sum of squeezed frames and positions, which goes into the first block; no norm comes before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from engine.nets import wav2vec2_config, wrapped
from engine.upstream import Card, Upstream


def describe(config: Mapping[str, Any], preprocessor: Mapping[str, Any], where: str) -> Card:
    """What the configuration says of the network: its front end is that of SEW."""
    card = wav2vec2_config.describe({**config, "model_type": "sew", "hidden_act": "gelu"}, preprocessor, where)
    return replace(card, taps=(), window=wrapped.WINDOW)


def build(card: Card, config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> Upstream:
    """The network as it is before it has learnt anything."""
    return wrapped.wrapped(card, config, preprocessor, card.hop - card.shortest)


def weights(held: Mapping[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Tensor], Sequence[str]]:
    """The weights under the names of the class."""
    return wrapped.weights(held, config)
