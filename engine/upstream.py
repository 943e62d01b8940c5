"""What an upstream is: a list of unpadded 16 kHz waveforms in, every layer out."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.errors import AuscultError, Refused, Unknown
from engine.registry import Registry
from engine.weights import Fit

SAMPLE_RATE = 16_000


@dataclass(frozen=True)
class Tap:
    """What an upstream shows besides its states: the output of a convolution, the codes of a quantizer."""

    name: str  # "conv1", "codes"
    dim: int  # for codes, how many each frame has
    hop: int  # samples of the card's rate from one frame to the next
    codes: bool = False  # whole numbers: which entry of a codebook
    entries: int = 0  # of each codebook


def described_only(card: "Card") -> "Upstream":
    """What opens a card that only describes."""
    raise Refused(f"{card.name or 'This upstream'} is only described; nothing says how it is opened.")


@dataclass(frozen=True)
class Card:
    """What is known of an upstream before any weight is read or fetched."""

    name: str  # what a person types: "fbank", "hf:facebook/hubert-base-ls960"
    family: str  # as a person writes it, the same from every source: "HuBERT"
    layers: int  # number of blocks; there is one state more: state 0 is the input of the first block
    dims: tuple[int, ...]  # of each state, so layers + 1 of them
    hop: int  # samples of `sample_rate` from one frame to the next
    shortest: int  # samples at 16 kHz of the shortest legal clip
    open: Callable[["Card"], "Upstream"] = field(default=described_only, repr=False, compare=False)
    source: str = "built in"  # where its weights come from, in words or as a web address
    revision: str = ""  # commit or hash of the weights; part of every key and result
    sample_rate: int = SAMPLE_RATE  # that the model itself works at; what it is given always has 16 kHz
    license: str = ""
    attention: bool = False  # gives attention maps
    differentiable: bool = True  # a gradient reaches the sound
    taps: tuple[Tap, ...] = ()
    window: float = 0.0  # seconds that it hears at once; a longer clip goes through in overlapping windows; 0 = any length
    here: bool = True  # usable without the network
    raw: str = ""  # of what is normalised over each clip, which leaves nothing in a clip's mean: the upstream that is not
    about: str = ""  # one sentence for a person
    paper: str = ""  # "Hsu et al. 2021, arXiv:2106.07447"
    data: str = ""  # what it was trained on: "LibriSpeech, 960 h"
    languages: tuple[str, ...] = ()  # ISO 639-1 where there is one; ("many",) beyond ten
    measured: str = ""  # what probes found in its layers, in words
    parameters: int = 0  # of the part that makes the states; 0 = not known
    # That are fetched, or lie on disk: exact of a file that is here, else to within a few percent; 0 = nothing or not known.
    bytes: int = 0
    # Brings the weights here, saying how many bytes are done of how many; None where nothing needs fetching.
    fetch: Callable[["Card", Callable[[float, float], None]], None] | None = field(default=None, repr=False, compare=False)
    # Where what was fetched lies; None where nothing is fetched.
    files: Callable[["Card"], list[Path]] | None = field(default=None, repr=False, compare=False)
    # The same architecture with fresh weights, drawn from torch's generator; None where there are no weights.
    untrained: Callable[["Card"], "Upstream"] | None = field(default=None, repr=False, compare=False)

    @property
    def hop_seconds(self) -> float:
        return self.hop / self.sample_rate


@dataclass(frozen=True)
class Hidden:
    """Every layer of a batch."""

    states: list[Tensor]  # layer -> (batch, frames, dim); 0 = input of the first block, i = output of block i
    lengths: Tensor  # (batch,) valid frames of each clip, from the convolution arithmetic
    attention: list[Tensor] | None = None  # block -> (batch, heads, frames, frames)

    def clip(self, index: int) -> list[Tensor]:
        """The states of one clip without padding: layer -> (frames, dim)."""
        frames = int(self.lengths[index])
        return [state[index, :frames] for state in self.states]


class Upstream(nn.Module, ABC):
    """A speech model that shows every layer. Subclasses write `frames` and `forward`; callers use `encode`."""

    card: Card
    loaded: Fit | None = None  # how the weights of its file went into it

    @abstractmethod
    def frames(self, samples: int) -> int:
        """Exact number of frames that a clip of so many samples gives."""

    @abstractmethod
    def forward(self, wavs: list[Tensor], attention: bool) -> Hidden:
        """Encode checked waveforms; a clip's valid frames must not depend on the other clips of the batch."""

    def tapped(self, wavs: list[Tensor], names: Sequence[str]) -> dict[str, list[Tensor]]:
        """What the taps give for checked waveforms. To be written where the card names taps."""
        raise Refused(f"The card of {self.card.name} names taps, but {type(self).__name__} does not show them.")

    def encode(self, wavs: list[Tensor], *, attention: bool = False) -> Hidden:
        """All layers of a list of unpadded mono 16 kHz waveforms. Differentiable; the caller sets inference mode."""
        if attention and not self.card.attention:
            raise Refused(f"{self.card.name} has no attention maps to show.")
        self._check(wavs)
        hidden: Hidden = self(wavs, attention)
        return hidden

    def tap(self, wavs: list[Tensor], *names: str) -> dict[str, list[Tensor]]:
        """What the taps of these names give, each as one (frames, dim) for each clip; codes are whole numbers."""
        known = {tap.name for tap in self.card.taps}
        for name in names:
            if name not in known:
                raise Unknown(f"tap of {self.card.name}", name, known)
        self._check(wavs)
        return self.tapped(wavs, names)

    def _check(self, wavs: list[Tensor]) -> None:
        if not wavs:
            raise Refused(f"{self.card.name} was given no clip.")
        for index, wav in enumerate(wavs):
            if wav.dim() != 1:
                raise Refused(f"Clip {index} has shape {tuple(wav.shape)}; an upstream takes mono waveforms (samples,).")
            if not wav.is_floating_point():
                raise Refused(f"Clip {index} holds {wav.dtype}; an upstream takes floating point samples between -1 and 1.")
            if wav.numel() < self.card.shortest:
                raise Refused(
                    f"Clip {index} has {wav.numel()} samples; {self.card.name} needs at least {self.card.shortest} samples "
                    f"({self.card.shortest / SAMPLE_RATE * 1000:.0f} ms)."
                )

    @property
    def device(self) -> torch.device:
        """Where this upstream computes."""
        for tensor in (*self.parameters(), *self.buffers()):
            return tensor.device
        return torch.device("cpu")


@dataclass(frozen=True)
class Family:
    """The upstreams that one file offers: cards known ahead, and a way to make one from what follows its prefix."""

    cards: Iterable[Card] | Callable[[], Iterable[Card]] = ()
    prefix: str = ""  # "hf" answers to "hf:anything"
    find: Callable[[str], Card] | None = None  # the card of what follows "prefix:"; may read a config, never weights

    def known(self) -> Iterable[Card]:
        return self.cards() if callable(self.cards) else self.cards


UPSTREAMS: Registry[Family] = Registry(Family, "engine.upstreams")


def cards() -> Iterator[Card]:
    """The card of every upstream known ahead."""
    for family in UPSTREAMS.instances():
        yield from family.known()


def find(name: str) -> Card:
    """The card of an upstream by name; reads no weights."""
    known = {card.name: card for card in cards()}
    if name in known and known[name].open is not described_only:
        return known[name]
    prefix, colon, rest = name.partition(":")
    families = {family.prefix: family for family in UPSTREAMS.instances() if family.find is not None}
    if colon and prefix in families:
        search = families[prefix].find
        assert search is not None
        return replace(search(rest), name=name)
    raise Unknown("upstream", name, [*known, *(f"{prefix}:..." for prefix in families)])


def missing(*names: str) -> list[str]:
    """Why these names cannot be used, one sentence for each that cannot."""
    return [reason for reason in map(_reason, dict.fromkeys(names)) if reason]


def _reason(name: str) -> str:
    try:
        find(name)
    except AuscultError as error:
        return str(error)
    return ""


_warm: OrderedDict[tuple[str, str, str], Upstream] = OrderedDict()
_WARM_LIMIT = 2


def load(name: str, device: torch.device | str = "cpu") -> Upstream:
    """An upstream ready to use, in eval mode. The last two stay in memory; a changed revision is read anew."""
    card = find(name)
    key = (card.name, card.revision, str(device))
    if key in _warm:
        _warm.move_to_end(key)
        return _warm[key]
    upstream = card.open(card).to(device).eval()
    _warm[key] = upstream
    while len(_warm) > _WARM_LIMIT:
        _warm.popitem(last=False)
    return upstream
