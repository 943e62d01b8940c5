"""What every corpus promises, over the registry."""

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine import audio, corpus
from engine.corpus import CORPORA, Utterance
from engine.errors import Refused, Unknown

Make = Callable[[Path], str]


def _tones(folder: Path, names: list[str]) -> None:
    for index, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        audio.save(file, 0.1 * np.sin(np.arange(8_000 + 160 * index) * 0.01 * (index + 1)))


def _manifest(folder: Path) -> str:
    speakers = "abcdefgh"
    _tones(folder, [f"sound/{speaker}{take}.wav" for speaker in speakers for take in range(3)])
    lines = [f"sound/{speaker}{take}.wav,{speaker},w{take}" for speaker in speakers for take in range(3)]
    (folder / "manifest.csv").write_text("path,speaker,word\n" + "\n".join(lines))
    (folder / "sound" / "a0.phn").write_text("0 4000 a\n4000 8000 b\n")
    return f"manifest:{folder}"


def _folder(folder: Path) -> str:
    _tones(folder, [f"{kind}/{index}.wav" for kind in ("dog", "cat") for index in range(10)])
    return f"folder:{folder}"


def _librispeech(folder: Path) -> str:
    for part, speaker in [("train-clean-100", 19), ("train-clean-100", 26), ("dev-clean", 84), ("test-other", 61)]:
        place = folder / part / str(speaker) / "198"
        _tones(place, [f"{speaker}-198-000{take}.flac" for take in range(2)])
        (place / f"{speaker}-198.trans.txt").write_text(
            "".join(f"{speaker}-198-000{take} NOT WORDS BUT A TONE\n" for take in range(2))
        )
    (folder / "SPEAKERS.TXT").write_text("; a comment\n19   | F | train-clean-100 | 25.19 | A\n84 | M | dev-clean | 8 | B\n")
    return f"librispeech:{folder}"


def _librilight(folder: Path) -> str:
    for speaker in range(100, 110):
        _tones(folder, [f"small/{speaker}/book_mp3/{speaker}_{chapter}.flac" for chapter in range(2)])
        for chapter in range(2):
            (folder / f"small/{speaker}/book_mp3/{speaker}_{chapter}.json").write_text(
                f'{{"speaker": "{speaker}", "book_meta": {{"meta_genre": "Literature"}}, "voice_activity": [[0, 0.4]]}}'
            )
    return f"librilight:{folder}"


def _common_voice(folder: Path) -> str:
    _tones(folder, [f"{tongue}/clips/{tongue}_{clip}.wav" for tongue in ("cy", "de") for clip in range(3)])
    for tongue in ("cy", "de"):
        for clip, table in enumerate(("train", "dev", "test")):
            (folder / tongue / f"{table}.tsv").write_text(
                "client_id\tpath\tsentence\tage\tgender\taccents\tlocale\n"
                f'{tongue}{clip}\t{tongue}_{clip}.wav\tShe said "no.\t\tfemale\t\t{tongue}\n'
            )
    return f"common_voice:{folder}"


def _voxpopuli(folder: Path) -> str:
    session = "20090112-0900-PLENARY-{}-en"
    for split, number in (("train", 1), ("dev", 2), ("test", 3)):
        _tones(folder, [f"transcribed_data/en/2009/{session.format(number)}.ogg"])
        (folder / f"transcribed_data/en/asr_{split}.tsv").write_text(
            "id\traw_text\tnormalized_text\tspeaker_id\tsplit\tgender\n"
            f"{session.format(number)}\tYes.\tyes\ts{number}\t{split}\tfemale\n"
        )
    _tones(
        folder, [f"unlabelled_data/de/2010/2010011{day}-0900-PLENARY-1-de_{part}.ogg" for day in range(5) for part in (0, 1)]
    )
    return f"voxpopuli:{folder}"


def _audioset(folder: Path) -> str:
    for split in ("balanced_train", "valid", "eval"):
        _tones(folder, [f"{split}/Y--{split}{clip}.wav" for clip in range(2)])
        (folder / f"{split}_segments.csv").write_text(
            "# Segments csv created Sun Mar  5 10:54:31 2017\n# num_ytids=2, num_segs=2\n"
            "# YTID, start_seconds, end_seconds, positive_labels\n"
            f'--{split}0, 30.000, 40.000, "/m/09x0r,/t/dd00088"\n--{split}1, 0.000, 10.000, "/m/09x0r"\n'
            f'--gone, 0.000, 10.000, "/m/09x0r"\n'
        )
    (folder / "class_labels_indices.csv").write_text('index,mid,display_name\n0,/m/09x0r,"Speech"\n')
    return f"audioset:{folder}"


def _shards(folder: Path) -> str:
    for shard in ("train-000000", "train-000001", "valid-000000", "test-000000"):
        _tones(folder / "loose", [f"{shard}.{key}.flac" for key in range(2)])
        with tarfile.open(folder / f"{shard}.tar", "w") as archive:
            for key in range(2):
                archive.add(folder / "loose" / f"{shard}.{key}.flac", f"{key:04}.flac")
                told = json.dumps({"speaker": f"{shard[:4]}{key}", "text": "a tone", "kind": str(key), "more": [1]}).encode()
                about = tarfile.TarInfo(f"{key:04}.json")
                about.size = len(told)
                archive.addfile(about, io.BytesIO(told))
    shutil.rmtree(folder / "loose")
    return f"shards:{folder}"


# How to make a small one of each kind. A new kind of corpus adds its line here.
SMALL: dict[str, Make] = {
    "manifest": _manifest,
    "folder": _folder,
    "librispeech": _librispeech,
    "librilight": _librilight,
    "common_voice": _common_voice,
    "voxpopuli": _voxpopuli,
    "audioset": _audioset,
    "shards": _shards,
    "spoken": lambda _: "spoken:digits?voices=4&takes=1&noise=20,none&room=none,small",
}


def test_every_kind_is_here() -> None:
    assert not CORPORA.broken
    assert set(SMALL) == set(CORPORA.classes())


@pytest.fixture(params=sorted(SMALL))
def name(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return SMALL[request.param](tmp_path)


def test_the_contract(name: str) -> None:
    found = corpus.find(name)
    assert found.name == name
    utterances = list(found.utterances())
    assert utterances and utterances == list(found.utterances()) == list(corpus.find(name).utterances())
    assert len({utterance.id for utterance in utterances}) == len(utterances)
    assert {utterance.split for utterance in utterances} == {"train", "valid", "test"}
    assert len({frozenset(utterance.labels) for utterance in utterances}) == 1  # every label for every utterance
    for utterance in utterances:
        _check(utterance)


def test_what_it_offers_is_what_it_has(name: str, workspace: Path) -> None:
    offer = corpus.offers(name)
    assert corpus.find(name).here != name.startswith("spoken")
    assert offer is not None
    assert not list(workspace.rglob("*.wav")) and not list(workspace.rglob("catalogue")) + list(
        workspace.rglob("lengths")
    )  # nothing is made or measured
    utterances = list(corpus.find(name).utterances())
    values: dict[str, set[str]] = {"speaker": {utterance.speaker for utterance in utterances} - {""}}
    for utterance in utterances:
        for label, value in utterance.labels.items():
            values.setdefault(label, set()).add(value)
    assert offer.labels == {label: len(found - {""}) for label, found in values.items() if found - {""}}
    assert set(offer.tiers) == {tier for utterance in utterances for tier in utterance.tiers}
    assert corpus.find(name).here


def _check(utterance: Utterance) -> None:
    sound = audio.load(utterance.path, start=utterance.start, end=utterance.end)
    assert sound.seconds == pytest.approx(utterance.seconds, abs=0.001)
    assert all(isinstance(value, str) for value in utterance.labels.values())
    for spans in utterance.tiers.values():
        assert spans and list(spans) == sorted(spans, key=lambda span: (span.start, span.end))
        assert all(0 <= span.start < span.end <= utterance.seconds + 1e-4 and span.label for span in spans)


def test_content_is_stable_and_follows_the_sound(name: str, workspace: Path) -> None:
    found = corpus.find(name)
    before, utterances = found.content, list(found.utterances())
    assert before == corpus.find(name).content
    shutil.rmtree(workspace)
    workspace.mkdir()
    assert corpus.find(name).content == before  # also in a fresh workspace
    if name.startswith("shards"):
        archive = Path(name.partition(":")[2], "train-000000.tar")
        archive.write_bytes(archive.read_bytes().replace(b"a tone", b"a tune"))
        assert corpus.find(name).content != before
        archive.unlink()
        assert len(list(corpus.find(name).utterances())) == len(utterances) - 2
    elif not name.startswith("spoken"):
        audio.save(utterances[3].path, np.full(8_000, 0.1))
        assert corpus.find(name).content != before
        changed = corpus.find(name).content
        utterances[3].path.unlink()
        if name.startswith("manifest"):  # what it names has to be there
            with pytest.raises(Refused, match="There is no file"):
                list(corpus.find(name).utterances())
        else:
            assert corpus.find(name).content != changed


def test_speakers_are_in_one_split(name: str) -> None:
    splits: dict[str, set[str]] = {}
    for utterance in corpus.find(name).utterances():
        if utterance.speaker:
            splits.setdefault(utterance.speaker, set()).add(utterance.split)
    assert all(len(names) == 1 for names in splits.values())


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(Unknown, match="spoken:digits"):
        corpus.find("spocken:digits")
    assert "spoken:minimal-pairs" in corpus.known()
