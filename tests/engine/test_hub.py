"""What is here of each upstream; adding, forgetting and deleting; never a file of the user's."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from engine import hub, upstream, weights
from engine.errors import Refused, Unknown
from engine.settings import settings
from engine.upstream import described_only
from engine.upstreams import torchaudio as bundles


def entry(name: str) -> hub.Entry:
    return next(entry for entry in hub.entries() if entry.card.name == name)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    tiny.checkpoint(tmp_path / "mine", "hubert")
    return tmp_path / "mine"


def test_every_card_is_an_entry_and_nothing_is_read_for_it() -> None:
    hub.entries()
    began = time.perf_counter()
    entries = hub.entries()
    assert time.perf_counter() - began < 1.0
    assert [entry.card.name for entry in entries] == [card.name for card in upstream.cards()]
    assert not any(entry.own or entry.bytes_here or entry.bytes_partial for entry in entries)


def test_an_added_folder_is_offered_until_it_is_forgotten(own: Path) -> None:
    card = hub.add(str(own))
    assert (card.name, card.layers) == (f"hf:{own}", 2)
    assert hub.add(f"{own}/config.json").name == card.name  # twice is once
    listed = [card for card in upstream.cards() if card.name == f"hf:{own}"]
    assert [(card.layers, card.dims, card.taps, card.here) for card in listed] == [(2, (16, 16, 16), card.taps, True)]
    assert entry(card.name).own and entry(card.name).bytes_here == 0
    with torch.inference_mode():
        assert len(upstream.load(card.name).encode([torch.randn(4_000)]).states) == 3
    hub.forget(card.name)
    assert card.name not in {entry.card.name for entry in hub.entries()}
    assert (own / "model.safetensors").exists()
    with pytest.raises(Unknown, match="no added checkpoint called"):
        hub.forget(card.name)


def test_an_added_checkpoint_is_read_anew_each_time_it_is_used(own: Path) -> None:
    name = hub.add(str(own)).name
    before = upstream.find(name).revision
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    found = upstream.find(name)
    assert (found.layers, found.open is described_only) == (1, False)
    assert found.revision != before


def test_an_added_checkpoint_that_has_gone_is_listed_as_gone(own: Path) -> None:
    name = hub.add(str(own)).name
    own.rename(own.with_name("elsewhere"))
    assert not entry(name).card.here
    with pytest.raises(Refused, match="it is not there"):
        upstream.find(name)


def test_what_is_no_checkpoint_is_refused_and_not_remembered(tmp_path: Path) -> None:
    picture = tmp_path / "model.pt"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    (tmp_path / "empty").mkdir()
    for path, sentence in [
        (str(picture), "is a PNG picture; a file of weights"),
        (str(tmp_path / "empty"), "has no config.json. It holds: nothing"),
        (str(tmp_path / "nowhere"), "There is nothing at"),
        ("  ", "There is nothing at"),
    ]:
        with pytest.raises(Refused, match=sentence):
            hub.add(path)
    assert list(hub.added()) == []
    assert not (settings().workspace / "upstreams.json").exists()


@pytest.mark.parametrize("text", ["{", "3", "[3]", '[{"name": "x"}]', '["hf:x"]'])
def test_a_list_that_somebody_spoilt_harms_nothing_and_is_not_overwritten(text: str, own: Path) -> None:
    file = settings().workspace / "upstreams.json"
    file.write_text(text)
    assert list(hub.added()) == []
    with pytest.raises(Refused, match="the list of added checkpoints, is not readable"):
        hub.add(str(own))
    assert file.read_text() == text


def test_delete_frees_what_was_fetched_and_what_was_made_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"feature_extractor.x": torch.zeros(1_000)}
    monkeypatch.setattr(bundles, "BUNDLES", [("TINY", "tiny.pth", bundles.BASE, bundles.W2V, "")])
    file = settings().downloads / "torchaudio" / "TINY.pth"
    file.parent.mkdir(parents=True)
    file.with_name("TINY.pth.part").write_bytes(b"x" * 400)
    assert (entry("torchaudio:TINY").bytes_here, entry("torchaudio:TINY").bytes_partial) == (0, 400)
    torch.save(state, file)
    weights.read(file)
    found = entry("torchaudio:TINY")
    assert found.card.here
    assert found.bytes_here > file.stat().st_size + 4_000  # with what the pickle held
    assert found.bytes_partial == 400
    assert hub.delete("torchaudio:TINY") == found.bytes_here + 400
    assert not entry("torchaudio:TINY").card.here
    assert [path for path in settings().downloads.rglob("*") if path.is_file()] == []
    assert hub.delete("torchaudio:TINY") == 0


def test_delete_never_takes_a_file_of_the_users(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = hub.add(str(own)).name
    with pytest.raises(Refused, match="was fetched, so there is nothing to delete"):
        hub.delete(name)
    with pytest.raises(Refused, match="Nothing of fbank was fetched"):
        hub.delete("fbank")
    card = replace(upstream.find("fbank"), name="greedy", files=lambda card: [own / "model.safetensors", own])
    monkeypatch.setattr(upstream, "cards", lambda: iter([card]))
    assert hub.delete("greedy") == 0
    assert (own / "model.safetensors").exists()
