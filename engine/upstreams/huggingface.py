"""Checkpoints in the layout of transformers: `hf:ORGANISATION/NAME`, `hf:ORGANISATION/NAME@REVISION` or `hf:FOLDER`.

Only the configuration, the preprocessor's settings and the weights are read; no code of a checkpoint ever runs. The
weights go into our own network, strictly: every weight of the model must be there. Layers are numbered as transformers'
`hidden_states`: state 0 goes into the first block, state i comes out of block i.
"""

import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from engine import hubcache, weights
from engine.errors import Refused
from engine.upstream import Card, Family, Upstream

PREFIX = "hf:"
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")  # in the order of preference

# model_type in the configuration -> the module of engine.nets that reads, builds and fills such a network.
NETS = {
    **dict.fromkeys(("wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat"), "wav2vec2_config"),
    "wav2vec2-conformer": "wav2vec2_conformer",
    "wav2vec2-bert": "wav2vec2_bert",
    "sew": "wav2vec2_config",
    "whisper": "whisper",
    "audio-spectrogram-transformer": "spectrogram_transformer",
    "clap": "clap",
    "clap_audio_model": "clap",
    "encodec": "encodec",
    "mimi": "mimi",
    "dac": "dac",
}


class Net(Protocol):
    """What a module of engine.nets offers for the models of its types."""

    def describe(self, config: dict[str, Any], preprocessor: dict[str, Any], where: str) -> Card:
        """The card, but for what is the same for all: name, open, source, revision, fetch and the like."""

    def build(self, card: Card, config: dict[str, Any], preprocessor: dict[str, Any]) -> Upstream:
        """The network as it is before it has learnt anything."""

    def weights(self, held: dict[str, Tensor], config: dict[str, Any]) -> tuple[Mapping[str, Tensor], Sequence[str]]:
        """The weights under the network's names, all of them and only these; and the names that are left out."""


APACHE = "Apache-2.0"
BASE, LARGE = (12, 768), (24, 1024)

# Known ahead: name, (blocks, width), licence, what it is.
KNOWN = [
    ("facebook/wav2vec2-base", BASE, APACHE, "wav2vec 2.0 Base, trained on 960 h of English audiobooks."),
    ("facebook/wav2vec2-base-960h", BASE, APACHE, "wav2vec 2.0 Base, then fine-tuned to transcribe the same 960 h."),
    ("facebook/wav2vec2-large", LARGE, APACHE, "wav2vec 2.0 Large, trained on 960 h of English audiobooks."),
    ("facebook/wav2vec2-large-960h", LARGE, APACHE, "wav2vec 2.0 Large, then fine-tuned to transcribe the same 960 h."),
    ("facebook/wav2vec2-large-lv60", LARGE, APACHE, "wav2vec 2.0 Large, trained on 60,000 h of English audiobooks."),
    ("facebook/wav2vec2-large-xlsr-53", LARGE, APACHE, "XLSR-53: wav2vec 2.0 Large, trained on 56,000 h of 53 languages."),
    ("facebook/wav2vec2-xls-r-300m", LARGE, APACHE, "XLS-R 300M: wav2vec 2.0, trained on 436,000 h of 128 languages."),
    ("facebook/wav2vec2-xls-r-1b", (48, 1280), APACHE, "XLS-R 1B: wav2vec 2.0, trained on 436,000 h of 128 languages."),
    ("facebook/mms-300m", LARGE, "CC-BY-NC-4.0", "MMS 300M: wav2vec 2.0, trained on 500,000 h of over 1,400 languages."),
    ("facebook/hubert-base-ls960", BASE, APACHE, "HuBERT Base, trained on 960 h of English audiobooks."),
    ("facebook/hubert-large-ll60k", LARGE, APACHE, "HuBERT Large, trained on 60,000 h of English audiobooks."),
    ("facebook/hubert-xlarge-ll60k", (48, 1280), APACHE, "HuBERT Extra Large, trained on 60,000 h of English audiobooks."),
    (
        "utter-project/mHuBERT-147",
        BASE,
        "CC-BY-NC-SA-4.0",
        "mHuBERT-147: HuBERT Base, trained on 90,000 h of 147 languages.",
    ),
    ("ntu-spml/distilhubert", (2, 768), APACHE, "DistilHuBERT: two blocks distilled from HuBERT Base."),
    ("microsoft/wavlm-base", BASE, "CC-BY-SA-3.0", "WavLM Base, trained on 960 h of English audiobooks."),
    ("microsoft/wavlm-base-plus", BASE, "CC-BY-SA-3.0", "WavLM Base+, trained on 94,000 h of English."),
    ("microsoft/wavlm-large", LARGE, "CC-BY-SA-3.0", "WavLM Large, trained on 94,000 h of English."),
    (
        "microsoft/unispeech-sat-base",
        BASE,
        "CC-BY-SA-3.0",
        "UniSpeech-SAT Base: HuBERT made aware of speakers, 960 h of English.",
    ),
    ("facebook/data2vec-audio-base", BASE, APACHE, "data2vec Base for speech, trained on 960 h of English audiobooks."),
    ("facebook/data2vec-audio-large", LARGE, APACHE, "data2vec Large for speech, trained on 960 h of English audiobooks."),
]


def known() -> Iterator[Card]:
    """The cards of common checkpoints; asks only whether their files are here."""
    for repository, (layers, dim), license, about in KNOWN:
        yield Card(
            name=PREFIX + repository,
            family="huggingface",
            layers=layers,
            dims=(dim,) * (layers + 1),
            hop=320,
            shortest=400,
            open=open_checkpoint,
            source=f"https://huggingface.co/{repository}",
            revision=hubcache.commit(repository),
            license=license,
            attention=True,
            here=_is_here(hubcache.snapshot(repository)),
            about=about,
            fetch=fetch,
            files=_files,
            untrained=untrained,
        )


def find(place: str) -> Card:
    """The card of a folder or of a repository on the hub; of the latter the configuration may be fetched."""
    path = Path(place).expanduser()
    if place.startswith((".", "/", "~")) or path.exists():
        return _folder_card(place, path.resolve())
    repository, _, revision = place.partition("@")
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise Refused(f"'{place}' is neither a folder here nor a name like ORGANISATION/NAME on the hub.")
    card = next((card for card in known() if card.name == PREFIX + repository), None)
    folder = hubcache.snapshot(repository, revision)
    if card is None:
        folder = _described(place)
        card = _card(f"https://huggingface.co/{repository}", folder, f"Described by its {CONFIG}.")
    commit = hubcache.commit(repository, revision) or revision
    return replace(card, name=PREFIX + place, revision=commit, here=_is_here(folder), fetch=fetch, files=_files)


def _card(source: str, folder: Path, about: str) -> Card:
    described = Described.read(folder)
    card = described.net.describe(described.config, described.preprocessor, str(folder))
    return replace(card, open=open_checkpoint, source=source, about=card.about or about, untrained=untrained)


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
    net: Net

    @classmethod
    def read(cls, folder: Path) -> "Described":
        """Read the configuration and the preprocessor's settings of a folder."""
        config = read_config(folder)
        settings_file = folder / PREPROCESSOR
        preprocessor = _read_json(settings_file) if settings_file.exists() else {}
        _refuse_code(preprocessor, settings_file)
        net: Net = importlib.import_module(f"engine.nets.{NETS[config['model_type']]}")
        return cls(config, preprocessor, net)


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
    if kind not in NETS:
        raise Refused(f"'{folder}' holds a model of type '{kind}'; the types that can be read are {', '.join(NETS)}.")
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
