"""Any PyTorch module as an upstream: `python:package.module:factory`, from the command line only, never from a page.

`factory()` gives an `Upstream`, or a module with an attribute `hop` (samples at 16 kHz from one frame to the next) that
takes one clip (samples,) and gives the list of its layers, each (frames, dim), beginning with the input of its first
block. An attribute `shortest` names the samples of the shortest clip where one frame's worth of them does not do. All
else that the card tells is found by trying the module on short noises; numbers that do not fit are refused.
"""

import hashlib
import importlib
import re
import sys
import traceback
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from engine import weights
from engine.errors import AuscultError, Refused
from engine.settings import settings
from engine.upstream import SAMPLE_RATE, Card, Family, Hidden, Upstream

PREFIX = "python:"
NAME = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)", re.ASCII)


class Wrapped(Upstream):
    """A module of a person's own, clip by clip."""

    def __init__(self, card: Card, module: nn.Module, lead: int) -> None:
        super().__init__()
        self.card = card
        self.module = module
        self.lead = lead  # samples by which the first frame comes earlier than one hop from the beginning

    def frames(self, samples: int) -> int:
        return (samples + self.lead) // self.card.hop

    def forward(self, wavs: list[Tensor], attention: bool) -> Hidden:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.card.differentiable):
            clips = [_layers(self.module, wav.to(self.device)) for wav in wavs]
        lengths = [len(layers[0]) for layers in clips]
        for wav, length in zip(wavs, lengths, strict=True):
            if length != self.frames(wav.numel()):
                raise Refused(_misfit(self.card, wav.numel(), length, self.frames(wav.numel())))
        states = [pad_sequence([state.float() for state in layer], batch_first=True) for layer in zip(*clips, strict=True)]
        return Hidden(states, torch.tensor(lengths, device=self.device))


def find(place: str) -> Card:
    """The card of what a factory makes; imports it, where this process may."""
    if not settings().own_code:
        raise Refused(
            f"{PREFIX}{place} is code of your own, which no page can start. "
            "Name it on the command line: 'python launch.py run', 'submit' and 'layers' take it."
        )
    return _card(place)


@cache
def _card(place: str) -> Card:
    factory, file = _factory(place)
    made = _make(place, factory)
    revision = _revision(made, file)
    if isinstance(made, Upstream):
        return replace(made.card, open=partial(_open_upstream, place), source=str(file), revision=revision, untrained=None)
    hop = getattr(made, "hop", 0)
    if not isinstance(hop, int) or hop < 1:
        raise Refused(
            f"What {PREFIX}{place} makes has no attribute `hop`: samples at {SAMPLE_RATE} Hz from one frame to the next."
        )
    lead = _lead(made, hop)
    card = Card(
        name=PREFIX + place,
        family="Code of your own",
        layers=0,
        dims=(),
        hop=hop,
        shortest=int(getattr(made, "shortest", max(1, hop - lead))),
        open=partial(_open_module, place, lead),
        source=str(file),
        revision=revision,
        about=(factory.__doc__ or "").strip().split("\n")[0],
        parameters=sum(parameter.numel() for parameter in made.parameters()),
    )
    trial = Wrapped(card, made, lead)
    with torch.no_grad():
        for samples in (card.shortest, card.shortest + 1, card.shortest + hop, 12_345, 3 * SAMPLE_RATE - 1):
            trial([_noise(max(samples, card.shortest))], False)
    clip = _noise(max(8_000, card.shortest)).requires_grad_()
    layers = _layers(made, clip)
    return replace(
        card,
        layers=len(layers) - 1,
        dims=tuple(layer.shape[1] for layer in layers),
        differentiable=all(layer.requires_grad for layer in layers),
    )


def _lead(module: nn.Module, hop: int) -> int:
    """What has to be added to the samples of a clip before they are divided by the hop, for the number of frames."""

    def frames(samples: int) -> int:
        with torch.no_grad():
            return len(_layers(module, _noise(samples))[0])

    begin = max(SAMPLE_RATE, int(getattr(module, "shortest", 0)))
    first, last = frames(begin), frames(begin + hop)
    if last != first + 1:
        raise Refused(
            f"Its hop is {hop} samples, so {hop} samples more would give one frame more; but {begin:,} samples give "
            f"{first} frames and {begin + hop:,} give {last}."
        )
    step = begin + 1 + bisect_left(range(begin + 1, begin + hop), last, key=frames)
    return last * hop - step


def _layers(module: nn.Module, wav: Tensor) -> list[Tensor]:
    """What the module makes of a clip, looked at."""
    try:
        layers = module(wav)
    except AuscultError:
        raise
    except Exception as error:  # a person's code can fail in any way
        raise Refused(f"It failed with a clip of {wav.numel():,} samples: {_said(error)}") from error
    if not isinstance(layers, list | tuple) or not layers or not all(isinstance(layer, Tensor) for layer in layers):
        raise Refused(f"It gave {type(layers).__name__}; the list of its layers is expected, each a tensor (frames, dim).")
    shapes = [tuple(layer.shape) for layer in layers]
    if any(len(shape) != 2 for shape in shapes) or len({shape[0] for shape in shapes}) != 1:
        shown = ", ".join(map(str, shapes[:4]))
        raise Refused(f"Its layers have the shapes {shown}; each is expected as (frames, dim), all with as many frames.")
    return list(layers)


def _open_module(place: str, lead: int, card: Card) -> Upstream:
    return Wrapped(card, _make(place, _factory(place)[0]), lead)


def _open_upstream(place: str, card: Card) -> Upstream:
    made = _make(place, _factory(place)[0])
    assert isinstance(made, Upstream)
    made.card = card
    return made


def _factory(place: str) -> tuple[Callable[[], Any], Path]:
    """The factory of that name, and the file that it comes from."""
    named = NAME.fullmatch(place)
    if named is None:
        raise Refused(f"'{PREFIX}{place}' is not of the form {PREFIX}package.module:factory.")
    own = str(settings().extensions)
    if own not in sys.path:
        sys.path.append(own)
    try:
        module = importlib.import_module(named[1])
    except Exception as error:
        raise Refused(
            f"'{named[1]}' cannot be imported: {_said(error)} It is looked for in {own}, "
            "in the folders of PYTHONPATH and among the installed packages."
        ) from error
    factory = getattr(module, named[2], None)
    if not callable(factory):
        raise Refused(f"'{named[1]}' has no function or class called '{named[2]}'.")
    return factory, Path(module.__file__ or named[1])


def _make(place: str, factory: Callable[[], Any]) -> nn.Module:
    try:
        # What it draws at random is the same each time, and takes nothing from the draws of a run.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made = factory()
    except Exception as error:
        raise Refused(f"{PREFIX}{place} failed: {_said(error)}") from error
    if not isinstance(made, nn.Module):
        raise Refused(f"{PREFIX}{place} made {type(made).__name__}; a torch.nn.Module is expected.")
    return made.eval()


def _revision(module: nn.Module, file: Path) -> str:
    """Another one as soon as the file or a weight is another."""
    print_ = hashlib.sha256(weights.stamp(file).encode())
    for name, tensor in module.state_dict().items():
        print_.update(name.encode())
        print_.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return print_.hexdigest()[:16]


def _noise(samples: int) -> Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(0))


def _misfit(card: Card, samples: int, frames: int, expected: int) -> str:
    return (
        f"{card.name} gave {frames} frames for {samples:,} samples, where its hop of {card.hop} samples and what it gave "
        f"for other clips say {expected}."
    )


def _said(error: Exception) -> str:
    """A failure of a person's own code, in a sentence with its place."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    first = (str(error).strip() or "no word").splitlines()[0][:300]
    return f"{type(error).__name__} at {last.filename}, line {last.lineno}: {first}"


FAMILY = Family(prefix="python", find=find)
