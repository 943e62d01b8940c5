"""Checkpoints in the layout of transformers: `hf:ORGANISATION/NAME`, `hf:ORGANISATION/NAME@REVISION` or `hf:FOLDER`.

Only the configuration, the preprocessor's settings and the weights are read; no code of a checkpoint ever runs. The
weights go into our own network, strictly: every weight of the model must be there. Layers are numbered as transformers'
`hidden_states`: state 0 goes into the first block, state i comes out of block i.
"""

import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from engine import hubcache, weights
from engine.errors import AuscultError, Refused
from engine.nets.describing import describing, parameters
from engine.settings import HOUSE
from engine.upstream import Card, Family, Upstream

PREFIX = "hf:"
HUB = "https://huggingface.co/"
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")  # in the order of preference

# What of a card follows from the configuration.
ARCHITECTURE = ("layers", "dims", "hop", "shortest", "sample_rate", "attention", "differentiable", "taps", "window")
TABLE = HOUSE / "assets" / "huggingface.json"  # what is known ahead of common checkpoints

# model_type in the configuration -> the module of engine.nets that reads, builds and fills such a network, and its family.
NETS = {
    "wav2vec2": ("wav2vec2_config", "wav2vec 2.0"),
    "hubert": ("wav2vec2_config", "HuBERT"),
    "wavlm": ("wav2vec2_config", "WavLM"),
    "data2vec-audio": ("wav2vec2_config", "data2vec"),
    "unispeech": ("wav2vec2_config", "UniSpeech"),
    "unispeech-sat": ("wav2vec2_config", "UniSpeech-SAT"),
    "sew": ("wav2vec2_config", "SEW"),
    "sew-d": ("sew_d", "SEW-D"),
    "wav2vec2-conformer": ("wav2vec2_conformer", "wav2vec2-Conformer"),
    "wav2vec2-bert": ("wav2vec2_bert", "w2v-BERT 2.0"),
    "whisper": ("whisper", "Whisper"),
    "audio-spectrogram-transformer": ("spectrogram_transformer", "AST"),
    "clap": ("clap", "CLAP"),
    "clap_audio_model": ("clap", "CLAP"),
    "encodec": ("encodec", "EnCodec"),
    "mimi": ("mimi", "Mimi"),
    "dac": ("dac", "DAC"),
}
ANY_OTHER = "wrapped"


class Net(Protocol):
    """What a module of engine.nets offers for the models of its types."""

    def describe(self, config: dict[str, Any], preprocessor: dict[str, Any], where: str) -> Card:
        """The card, but for what is the same for all: name, family, open and the like; builds no network."""

    def build(self, card: Card, config: dict[str, Any], preprocessor: dict[str, Any]) -> Upstream:
        """The network as it is before it has learnt anything."""

    def weights(self, held: dict[str, Tensor], config: dict[str, Any]) -> tuple[Mapping[str, Tensor], Sequence[str]]:
        """The weights under the network's names, all of them and only these; and the names that are left out."""


@cache
def table() -> dict[str, dict[str, Any]]:
    """What is known of common checkpoints by repository: facts of a card, and `config`, where it is not the usual one."""
    found = {}
    for group in json.loads(TABLE.read_text("utf-8")):
        for repository, own in group.pop("checkpoints").items():
            found[repository] = {**group, **own, "config": {**group["config"], **own.get("config", {})}}
    return found


@cache
def common() -> dict[str, Card]:
    """The cards of common checkpoints by repository, but for what changes: what is here of them."""
    found = {}
    for repository, known in table().items():
        facts: dict[str, Any] = {name: fact for name, fact in known.items() if name != "config"}
        facts["languages"] = tuple(facts.get("languages", ()))
        card = Described(known["config"], {}).card(repository)
        facts["about"] = f"{facts['about']} {card.about}".strip()
        found[repository] = replace(
            card, name=PREFIX + repository, source=HUB + repository, fetch=fetch, files=_files, **facts
        )
    return found


def published() -> Iterator[Card]:
    """The cards of common checkpoints; asks only whether their files are here, and reads the configurations of those."""
    for repository, card in common().items():
        folder = hubcache.snapshot(repository)
        with suppress(AuscultError):  # opening it says what is wrong
            card = _exact(card, folder)
        yield replace(card, revision=hubcache.commit(repository), here=_is_here(folder))


def _exact(card: Card, folder: Path | None) -> Card:
    """The card of a common checkpoint with the architecture that its own configuration describes, where that is here."""
    if folder is None or not (folder / CONFIG).exists():
        return card
    own = Described.read(folder).card(str(folder))
    return replace(card, **{name: getattr(own, name) for name in ARCHITECTURE})


def known() -> Iterator[Card]:
    """The cards of common checkpoints, and of others that were fetched."""
    yield from published()
    for repository in hubcache.repositories():
        if repository not in common() and _is_here(hubcache.snapshot(repository)):
            with suppress(AuscultError):  # what cannot be read must not hide the others; opening it says why
                yield find(repository)


def find(place: str) -> Card:
    """The card of a folder or of a repository on the hub; of the latter the configuration may be fetched."""
    path = Path(place).expanduser()
    if place.startswith((".", "/", "~")) or path.exists():
        return _folder_card(place, path.resolve())
    repository, _, revision = place.partition("@")
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise Refused(f"'{place}' is neither a folder here nor a name like ORGANISATION/NAME on the hub.")
    folder = hubcache.snapshot(repository, revision)
    if repository in common():
        card = _exact(common()[repository], folder)
    else:
        folder = _described(place)
        card = _card(HUB + repository, folder, f"Described by its {CONFIG}.")
    commit = hubcache.commit(repository, revision) or revision
    return replace(card, name=PREFIX + place, revision=commit, here=_is_here(folder), fetch=fetch, files=_files)


def _card(source: str, folder: Path, about: str) -> Card:
    described = Described.read(folder)
    card = described.card(str(folder))
    numbers = card.parameters or _parameters(json.dumps(described.config), json.dumps(described.preprocessor), str(folder))
    return replace(card, source=source, about=card.about or about, parameters=numbers)


@lru_cache(maxsize=64)
def _parameters(config: str, preprocessor: str, where: str) -> int:
    """Numbers that make the states of the network of a configuration."""
    described = Described(json.loads(config), json.loads(preprocessor))
    with describing(where), torch.device("meta"):
        return parameters(described.net.build(described.card(where), described.config, described.preprocessor))


def _folder_card(place: str, folder: Path) -> Card:
    card = _card(str(folder), folder, "A checkpoint of your own.")
    return replace(card, name=PREFIX + place, revision=weights.stamp(*_describing(folder)))


def _describing(folder: Path) -> list[Path]:
    return [folder / CONFIG, folder / PREPROCESSOR, *_weight_files(folder)]


def untrained(card: Card) -> Upstream:
    """The network before it has learnt anything; of a checkpoint that is not here only the configuration is fetched."""
    place = card.name.removeprefix(PREFIX)
    described = Described.read(_described(place))
    return described.net.build(card, described.config, described.preprocessor)


def _described(place: str) -> Path:
    """The folder with the configuration; it is fetched where it is not here."""
    folder = Path(place).expanduser()
    if place.startswith((".", "/", "~")) or folder.exists():
        return folder
    repository, _, revision = place.partition("@")
    found = hubcache.snapshot(repository, revision)
    if found is None or not (found / CONFIG).exists():
        hubcache.fetch(repository, revision, [PREPROCESSOR, CONFIG], optional=PREPROCESSOR)
        found = hubcache.snapshot(repository, revision)
    assert found is not None
    return found


def open_checkpoint(card: Card) -> Upstream:
    """Read the weights into the network; they are fetched first where they are not here."""
    place = card.name.removeprefix(PREFIX)
    folder = Path(place).expanduser()
    if not (place.startswith((".", "/", "~")) or folder.exists()):
        if not card.here:
            fetch(card, lambda done, total: None)
        repository, _, revision = place.partition("@")
        found = hubcache.snapshot(repository, revision)
        assert found is not None
        folder = found
    described = Described.read(folder)
    with torch.device("meta"):
        network = described.net.build(card, described.config, described.preprocessor)
    given, unused = described.net.weights(read_weights(folder), described.config)
    network.loaded = weights.fit(network, given, f"'{folder}'", tuple(unused))
    return network


@dataclass(frozen=True)
class Described:
    """What the small files of a checkpoint say."""

    config: dict[str, Any]
    preprocessor: dict[str, Any]  # empty where there is none

    @classmethod
    def read(cls, folder: Path) -> "Described":
        """Read the configuration and the preprocessor's settings of a folder."""
        config = read_config(folder)
        settings_file = folder / PREPROCESSOR
        preprocessor = _read_json(settings_file) if settings_file.exists() else {}
        _refuse_code(preprocessor, settings_file)
        return cls(config, preprocessor)

    @property
    def net(self) -> Net:
        """The module for models of this type."""
        name, _ = NETS.get(self.config["model_type"], (ANY_OTHER, ""))
        net: Net = importlib.import_module(f"engine.nets.{name}")
        return net

    def card(self, where: str) -> Card:
        """What this says of the network."""
        kind = self.config["model_type"]
        _, family = NETS.get(kind, ("", kind))
        card = self.net.describe(self.config, self.preprocessor, where)
        return replace(card, family=family, open=open_checkpoint, untrained=untrained)


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a checkpoint, refused where it asks for code of its own."""
    if not folder.is_dir():
        what = "a file; name the folder that holds it" if folder.exists() else "not there"
        raise Refused(f"'{folder}' should be a folder with {CONFIG} and the weights, but it is {what}.")
    if not (folder / CONFIG).exists():
        there = ", ".join(sorted(entry.name for entry in folder.iterdir())[:6]) or "nothing"
        raise Refused(f"'{folder}' is no checkpoint of transformers: it has no {CONFIG}. It holds: {there}.")
    config = _read_json(folder / CONFIG)
    _refuse_code(config, folder / CONFIG)
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise Refused(f"'{folder / CONFIG}' names no model_type, so it is not known what kind of model it describes.")
    return config


def _read_json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise Refused(f"'{file}' is not readable JSON: {error}") from error
    if not isinstance(values, dict):
        raise Refused(f"'{file}' should hold settings by name, but it holds {type(values).__name__}.")
    return values


def _refuse_code(values: Any, file: Path) -> None:
    inside = [values]
    while inside:
        value = inside.pop()
        if isinstance(value, dict):
            for name in ("auto_map", "trust_remote_code"):
                if value.get(name):
                    raise Refused(f"'{file}' asks for code of its own ('{name}'). Auscult never runs code of a checkpoint.")
            inside += value.values()
        elif isinstance(value, list):
            inside += value


def _weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights, safetensors before anything else."""
    for name in WEIGHTS:
        file = folder / name
        if file.exists() and name.endswith(".index.json"):
            return [folder / part for part in _parts(file)]
        if file.exists():
            return [file]
    return []


def _parts(index: Path) -> list[str]:
    names = sorted(set(_read_json(index).get("weight_map", {}).values()))
    if not names or any(Path(name).name != name or not name.endswith(".safetensors") for name in names):
        raise Refused(f"'{index}' names files that are not safetensors beside it.")
    return names


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint, by name."""
    files = _weight_files(folder)
    if not files:
        raise Refused(f"'{folder}' holds no weights; one of {', '.join(WEIGHTS)} is expected.")
    found: dict[str, Tensor] = {}
    for file in files:
        found.update(weights.read(file).tensors)
    return found


def _is_here(folder: Path | None) -> bool:
    if folder is None or not (folder / CONFIG).exists():
        return False
    try:
        files = _weight_files(folder)
    except Refused:
        return False  # half of it may be here; opening it says what is wrong
    return bool(files) and all(file.exists() for file in files)


def fetch(card: Card, progress: Callable[[float, float], None]) -> None:
    """Bring a checkpoint of the hub into the workspace; what is there already is not fetched again."""
    repository, _, revision = card.name.removeprefix(PREFIX).partition("@")
    names = hubcache.offered(repository, revision)
    weights = next((name for name in WEIGHTS if name in names), None)
    if CONFIG not in names or weights is None:
        raise Refused(f"{repository} on the hub has no {CONFIG} with {' or '.join(WEIGHTS)}.")
    wanted = [name for name in (PREPROCESSOR, CONFIG, weights) if name in names]
    if weights.endswith(".index.json"):
        hubcache.fetch(repository, revision, [weights])
        folder = hubcache.snapshot(repository, revision)
        assert folder is not None
        wanted += _parts(folder / weights)
    hubcache.fetch(repository, revision, wanted, progress)


def _files(card: Card) -> list[Path]:
    lying = hubcache.lying(card.name.removeprefix(PREFIX).partition("@")[0])
    return [*lying, *(folder for file in lying for folder in weights.conversions(file))]


FAMILY = Family(cards=known, prefix="hf", find=find)
