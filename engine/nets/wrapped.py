"""Any other audio encoder that transformers knows: its own class, one clip at a time.

Where the blocks are and how long a frame is follows from running the front of the network on the meta device. State 0 is
what goes into the first block and state i what comes out of block i, seen by hooks: transformers' own `hidden_states`
end behind a final norm in some models. A sound longer than the window goes through in overlapping windows, for memory.
Where the checkpoint takes the waveform, a gradient reaches it; else its feature extractor, which is NumPy's, makes
features of it.
"""

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.errors import AuscultError, Refused
from engine.nets.windows import windowed
from engine.upstream import SAMPLE_RATE, Card, Hidden, Upstream
from engine.weights import renamed

WINDOW, OVERLAP = 30.0, 4.0  # seconds
WAVEFORM, FEATURES = "input_values", "input_features"
Extract = Callable[[Tensor], Tensor]  # (samples,) -> what the network takes, as a batch of one

# What torch calls the two parts of a weight that is normalised, before and since version 2.
NAMES = [(r"\.weight_g$", ".parametrizations.weight.original0"), (r"\.weight_v$", ".parametrizations.weight.original1")]


class Wrapped(Upstream):
    """A network of transformers and what makes its input."""

    def __init__(self, card: Card, model: Any, extract: Extract, lead: int) -> None:
        super().__init__()
        self.card = card
        self.model = model
        self.extract = extract
        self.lead = lead  # samples by which the first frame comes earlier than one hop from the beginning

    def frames(self, samples: int) -> int:
        return (samples + self.lead) // self.card.hop

    def forward(self, wavs: list[Tensor], attention: bool) -> Hidden:
        window, overlap = (
            round(seconds * SAMPLE_RATE / self.card.hop / 2) * 2 * self.card.hop for seconds in (WINDOW, OVERLAP)
        )
        wavs = [wav.to(self.device) for wav in wavs]
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.card.differentiable):
            return windowed(self.card, wavs, window, overlap, self.card.hop, self._window, attention)

    def _window(self, wav: Tensor, attention: bool) -> tuple[list[Tensor], list[Tensor]]:
        if attention:
            return self._mapped(wav)
        with watched(blocks(self.model, self.card.layers)) as seen:
            self.model(self.extract(wav))
        return seen, []

    def _mapped(self, wav: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        usual = self.model.config._attn_implementation
        self.model.set_attn_implementation("eager")
        try:
            with watched(blocks(self.model, self.card.layers)) as seen:
                out = self.model(self.extract(wav), output_attentions=True)
        finally:
            self.model.set_attn_implementation(usual)
        return seen, [maps[0].float() for maps in out.attentions]


@dataclass(frozen=True)
class Measured:
    """What running the front of a network tells."""

    layers: int
    dims: tuple[int, ...]
    hop: int
    lead: int
    shortest: int
    attention: bool
    parameters: int


def describe(config: Mapping[str, Any], preprocessor: Mapping[str, Any], where: str) -> Card:
    """What the configuration says of the network, and what a run without numbers shows."""
    try:
        measured = _measured(json.dumps(config), json.dumps(preprocessor))
    except Refused as error:
        raise Refused(f"'{where}' cannot be used. {error}") from error
    return Card(
        name="",
        family="",
        layers=measured.layers,
        dims=measured.dims,
        hop=measured.hop,
        shortest=measured.shortest,
        attention=measured.attention,
        differentiable=hears_waveform(preprocessor),
        window=WINDOW,
        parameters=measured.parameters,
        about=f"A model of the type {config['model_type']}, run by transformers."
        + (
            "" if hears_waveform(preprocessor) else " Its features are made outside torch, so no gradient reaches the sound."
        ),
    )


def build(card: Card, config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> Upstream:
    """The network as it is before it has learnt anything."""
    return wrapped(card, config, preprocessor, _measured(json.dumps(config), json.dumps(preprocessor)).lead)


def wrapped(card: Card, config: Mapping[str, Any], preprocessor: Mapping[str, Any], lead: int) -> Upstream:
    """The network where the lead of its first frame is known."""
    with torch.device("cpu"):  # its tables, too, need their numbers
        model = made(config)
    return Wrapped(card, model.float(), extractor(model, preprocessor), lead)


def weights(held: Mapping[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Tensor], Sequence[str]]:
    """The weights under the names of the class; in the file they may stand behind the name of a larger model."""
    with torch.device("meta"):
        own = set(made(config).state_dict())
    named = renamed(held, NAMES)
    ends = [(name, known) for known in sorted(own)[:20] for name in named if name.endswith(known)]
    before = Counter(name.removesuffix(known) for name, known in ends)
    prefix = max((each for each in before if not each or each.endswith(".")), key=lambda each: before[each], default="")
    bare = {name.removeprefix(prefix): tensor for name, tensor in named.items() if name.startswith(prefix)}
    given = {f"model.{name}": tensor for name, tensor in bare.items() if name in own}
    return given, sorted(named.keys() - {prefix + name.removeprefix("model.") for name in given})


def made(config: Mapping[str, Any]) -> Any:
    """The encoder that a configuration describes, with fresh weights."""
    from transformers import CONFIG_MAPPING, MODEL_MAPPING, AutoModel

    kind = config["model_type"]
    if kind not in CONFIG_MAPPING or CONFIG_MAPPING[kind] not in MODEL_MAPPING:
        raise Refused(f"Its type is '{kind}', of which transformers has no encoder here.")
    try:
        model: Any = AutoModel.from_config(  # type: ignore[no-untyped-call]
            CONFIG_MAPPING[kind].from_dict(dict(config))
        )
        encoder = model.get_encoder() if model.config.is_encoder_decoder else model
    except Exception as error:  # whatever a strange setting makes of it
        raise Refused(f"Its configuration does not describe a usable model: {_said(error)}") from error
    if encoder.main_input_name not in (WAVEFORM, FEATURES):
        raise Refused(f"Its type is '{kind}', which takes {encoder.main_input_name} and no sound.")
    return encoder.eval()


def hears_waveform(preprocessor: Mapping[str, Any]) -> bool:
    """Whether the network takes the waveform itself."""
    return str(preprocessor.get("feature_extractor_type", "Wav2Vec2FeatureExtractor")) == "Wav2Vec2FeatureExtractor"


def extractor(model: Any, preprocessor: Mapping[str, Any]) -> Extract:
    """What makes the input of a network, as the checkpoint's preprocessor says."""
    rate = preprocessor.get("sampling_rate", SAMPLE_RATE)
    if rate != SAMPLE_RATE:
        raise Refused(f"It was trained at {rate} Hz; only models for {SAMPLE_RATE} Hz can be used.")
    if hears_waveform(preprocessor):
        if model.main_input_name != WAVEFORM:
            raise Refused(f"It takes {model.main_input_name}, but no preprocessor_config.json says how to make them.")
        normal = bool(preprocessor) and preprocessor.get("do_normalize", True)
        return lambda wav: (functional.layer_norm(wav, wav.shape, eps=1e-7) if normal else wav)[None]
    import transformers
    from transformers.models.auto import feature_extraction_auto

    name = str(preprocessor["feature_extractor_type"])
    known = feature_extraction_auto.FEATURE_EXTRACTOR_MAPPING_NAMES.values()  # type: ignore[attr-defined]
    if name not in known:
        raise Refused(f"It makes its features with '{name}', which transformers does not know.")
    extract = getattr(transformers, name).from_dict(dict(preprocessor))

    def features(wav: Tensor) -> Tensor:
        sound = wav.detach().float().cpu().numpy()
        with numpy.errstate(all="ignore"), torch.device("cpu"), torch.autocast("cpu", enabled=False):
            found: Tensor = extract(sound, sampling_rate=SAMPLE_RATE, return_tensors="pt")[model.main_input_name]
        return found.to(wav.device).nan_to_num(0, 0, 0)  # where a feature that never moves was divided by its deviation

    return features


def blocks(model: nn.Module, layers: int = 0) -> nn.ModuleList:
    """The blocks of a network: of its lists of modules, of `layers` members where that is known, the richest."""
    lists = [
        module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == (layers or len(module))
    ]
    if not lists:
        raise Refused("The network has no list of blocks.")
    return max(lists, key=lambda each: len(list(each.modules())))


@contextmanager
def watched(row: nn.ModuleList, enough: bool = False) -> Iterator[list[Tensor]]:
    """What goes into the first of these blocks and what comes out of each, of the one clip that goes through inside.

    Where the first is `enough`, the run ends there with an error.
    """
    seen: list[Tensor] = []

    def entered(block: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append((given[0] if given else named["hidden_states"])[0])
        if enough:
            raise RuntimeError("What goes into the first block has been seen.")

    def left(block: nn.Module, given: tuple[Any, ...], out: Any) -> None:
        seen.append((out[0] if isinstance(out, tuple) else out)[0])

    hooks = [row[0].register_forward_pre_hook(entered, with_kwargs=True)]
    hooks += [block.register_forward_hook(left) for block in row]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@lru_cache(maxsize=8)
def _measured(config_text: str, preprocessor_text: str) -> Measured:
    config, preprocessor = json.loads(config_text), json.loads(preprocessor_text)
    with torch.device("meta"):
        model = made(config)
    extract = extractor(model, preprocessor)
    row = blocks(model)
    waveform = hears_waveform(preprocessor)

    def given(samples: int) -> Tensor:
        sound = torch.empty(1, samples, device="meta")
        return sound if waveform else extract(torch.linspace(-0.5, 0.5, samples, device="cpu")).to("meta")

    def frames(samples: int) -> int:
        """How many reach the first block; none where the front end needs more sound."""
        with torch.inference_mode(), watched(row, enough=True) as seen, suppress(Exception):
            model(given(samples))
        return len(seen[0]) if seen else 0

    try:
        begin = 2 * SAMPLE_RATE
        least = frames(begin)
        first = begin + bisect_left(range(begin, 2 * begin), least + 1, key=frames)
        second = begin + bisect_left(range(begin, 2 * begin), least + 2, key=frames)
        hop = second - first
        lead = (least + 1) * hop - first
        shortest = 1 + bisect_left(range(1, begin), 1, key=frames)
        checked = (shortest, shortest + hop, 12_345, begin + 1, first + 7 * hop - 1)
        if least < 1 or hop < 1 or any(frames(samples) != (samples + lead) // hop for samples in checked):
            raise Refused("Its frames do not follow one another at an even distance.")
        with torch.inference_mode(), watched(row) as seen:
            model.set_attn_implementation("eager")
            out = model(given(begin), output_attentions=True)
    except AuscultError:
        raise
    except Exception as error:
        raise Refused(f"A run of its network fails: {_said(error)}") from error
    if any(state.dim() != 2 or len(state) != least for state in seen):
        raise Refused("Its blocks do not keep one number of frames.")
    maps = getattr(out, "attentions", None) or ()
    square = len(maps) == len(row) and all(each is not None and tuple(each.shape[-2:]) == (least, least) for each in maps)
    numbers = sum(number.numel() for number in model.parameters())
    return Measured(len(row), tuple(state.shape[1] for state in seen), hop, lead, shortest, square, numbers)


def _said(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
