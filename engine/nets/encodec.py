"""The encoder of EnCodec (Défossez et al. 2022, arXiv:2210.13438) for mono sound, before and after its quantizer.

State 0 is what the convolutions give and the recurrent part takes, state 1 what the recurrent part gives, and the last
state the latents that are quantized. The tap `codes` has every codebook, as at the highest bandwidth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import Refused
from engine.nets import seanet
from engine.nets.clips import together
from engine.nets.describing import describing
from engine.nets.resampling import Resampling
from engine.nets.residual_codes import ResidualCodes
from engine.nets.seanet import Convolution, Seanet, weighed
from engine.nets.seanet import Shape as Convolutions
from engine.upstream import Card, Hidden, Tap, Upstream
from engine.weights import renamed

# What transformers takes for the convolutions where a configuration says nothing.
USUAL = Convolutions(
    filters=32,
    width=128,
    strides=(2, 4, 5, 8),
    kernel=7,
    last_kernel=7,
    residual_kernel=3,
    residuals=1,
    growth=2,
    compress=2,
    causal=True,
    padding="reflect",
    shortcut=True,
)


@dataclass(frozen=True)
class Shape:
    """What tells one EnCodec from another."""

    convolutions: Convolutions
    recurrent: int  # layers of the recurrent part
    rate: int
    codebooks: int
    entries: int
    depth: int  # width of the codebooks


def read_shape(config: Mapping[str, Any], where: str) -> Shape:
    """The architecture that a configuration describes; what it leaves out has the defaults of transformers."""
    if config.get("audio_channels", 1) != 1 or config.get("norm_type", "weight_norm") != "weight_norm":
        raise Refused(
            f"'{where}' is an EnCodec for stereo or one that normalises over time; only those for mono sound whose "
            "convolutions have normalised weights (24 and 32 kHz) can be used."
        )
    if config.get("normalize") or config.get("chunk_length_s"):
        raise Refused(
            f"'{where}' is an EnCodec that levels or cuts its input; only those that take it as it is can be used."
        )
    with describing(where):
        convolutions = seanet.read_shape(config, USUAL)
        rate = int(config.get("sampling_rate", 24_000))
        entries = int(config.get("codebook_size", 1024))
        bits = (entries - 1).bit_length() * -(-rate // convolutions.hop)  # of one codebook, in a second
        highest = float((config.get("target_bandwidths") or (24.0,))[-1])
        return Shape(
            convolutions=convolutions,
            recurrent=int(config.get("num_lstm_layers", 2)),
            rate=rate,
            codebooks=int(1000 * highest // bits),
            entries=entries,
            depth=int(config.get("codebook_dim") or convolutions.width),
        )


def describe(config: Mapping[str, Any], preprocessor: Mapping[str, Any], where: str) -> Card:
    """What the configuration says of the encoder."""
    shape = read_shape(config, where)
    hop, inner = shape.convolutions.hop, shape.convolutions.inner
    return Card(
        name="",
        family="",
        layers=2,
        dims=(inner, inner, shape.convolutions.width),
        hop=hop,
        shortest=1,
        sample_rate=shape.rate,
        taps=(*shape.convolutions.taps, Tap("codes", shape.codebooks, hop, codes=True, entries=shape.entries)),
        about="State 0 goes into the recurrent part, state 1 comes out of it, state 2 is what is quantized.",
    )


def build(card: Card, config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> Upstream:
    """The encoder as it is before it has learnt anything."""
    return Encodec(card, read_shape(config, card.name))


def weights(held: Mapping[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Tensor], Sequence[str]]:
    """The weights of the encoder and the codebooks; the decoder and what trained the codebooks are left out."""
    ours = {name for name in held if name.startswith("encoder.") or name.endswith(".codebook.embed")}
    given = weighed({name: held[name] for name in ours})
    return renamed(given, [(r"^quantizer\.layers\.(\d+)\.codebook\.embed$", r"quantizer.books.\1")]), sorted(
        held.keys() - ours
    )


class Recurrent(nn.Module):
    """Recurrent layers, added to their input: (frames, dim) -> the same."""

    def __init__(self, dim: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, dim, layers)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # rounding would add up from frame to frame
            out: Tensor = self.lstm(x[:, None])[0][:, 0]
        return x + out


class Encodec(Upstream):
    """The encoder, clip by clip."""

    def __init__(self, card: Card, shape: Shape) -> None:
        super().__init__()
        self.card = card
        self.shape = shape
        convolutions = shape.convolutions
        with torch.device("cpu"):  # the network may lie on the meta device; what is computed from nothing does not
            self.resampling = Resampling(shape.rate)
        inner = convolutions.inner
        tail = [
            Recurrent(inner, shape.recurrent),
            nn.ELU(),
            Convolution(convolutions, inner, convolutions.width, convolutions.last_kernel),
        ]
        self.encoder = Seanet(convolutions, tail)
        self.quantizer = ResidualCodes(shape.codebooks, shape.entries, shape.depth)

    def frames(self, samples: int) -> int:
        return -(-self.resampling.samples(samples) // self.shape.convolutions.hop)

    def forward(self, wavs: list[Tensor], attention: bool) -> Hidden:
        return together([self._states(wav) for wav in wavs])

    def tapped(self, wavs: list[Tensor], names: Sequence[str]) -> dict[str, list[Tensor]]:
        found = {}
        for name in names:
            if name == "codes":
                found[name] = [self.quantizer(self._states(wav)[-1]) for wav in wavs]
            else:
                found[name] = [self.encoder(self._sound(wav), int(name.removeprefix("conv"))) for wav in wavs]
        return found

    def _sound(self, wav: Tensor) -> Tensor:
        sound: Tensor = self.resampling(wav.to(self.device, torch.float32))
        return sound

    def _states(self, wav: Tensor) -> list[Tensor]:
        recurrent, activate, convolve = self.encoder.last()
        heard = self.encoder(self._sound(wav))
        passed = recurrent(heard)
        return [heard, passed, convolve(activate(passed).T[None])[0].T.float()]
