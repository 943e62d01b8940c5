"""Corpora as their publishers lay them out: what each sound is, and what is said of a folder that is something else."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from engine import audio, corpus
from engine.corpus import Utterance
from engine.errors import Refused
from engine.layout import split_named
from engine.pretexts.mockingjay import Mockingjay
from engine.run import Context


def tones(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        audio.save(folder / name, 0.1 * np.sin(np.arange(8_000) * 0.05))


def read(name: str) -> dict[str, Utterance]:
    return {utterance.id: utterance for utterance in corpus.find(name).utterances()}


def test_librispeech(tmp_path: Path) -> None:
    root = tmp_path / "LibriSpeech"
    tones(root, "dev-other/116/288045/116-288045-0000.flac", "train-clean-100/19/198/19-198-0001.flac", "notes/x/y/z.flac")
    (root / "dev-other/116/288045/116-288045.trans.txt").write_text("116-288045-0000 AS I APPROACHED THE CITY\n")
    (root / "train-clean-100/19/198/19-198.trans.txt").write_text("19-198-0001 NORTHANGER ABBEY\n19-198-0002 GONE\n")
    (root / "SPEAKERS.TXT").write_text(";ID |SEX| SUBSET | MINUTES | NAME\n19 | F | train-clean-100 | 25.19 | Kara\n")
    found = read(f"librispeech:{root}")
    assert set(found) == {"dev-other/116-288045-0000", "train-clean-100/19-198-0001"}  # only what has its transcript beside
    first, second = found.values()
    assert (first.split, first.speaker, first.text) == ("valid", "116", "AS I APPROACHED THE CITY")
    assert (
        second.labels == {"chapter": "198", "part": "train-clean-100", "gender": "F"} and second.text == "NORTHANGER ABBEY"
    )
    part = read(f"librispeech:{root / 'train-clean-100'}")  # one part by itself is the same, gender and all
    assert list(part.values()) == [second]


def test_librilight(tmp_path: Path) -> None:
    tones(tmp_path, "small/100/sea_fairies/01_baum.flac", "small/100/sea_fairies/02_baum.flac", "small/7/b/03.flac")
    (tmp_path / "small/100/sea_fairies/01_baum.json").write_text(
        '{"speaker": "100", "book_meta": {"genre": ["Myths", "Legends"], "meta_genre": null}, "snr": 9.4}'
    )
    (tmp_path / "small/7/b/03.json").write_text("not json")
    (only,) = read(f"librilight:{tmp_path}").values()
    assert (only.id, only.speaker) == ("small/100/sea_fairies/01_baum", "100")
    assert only.labels == {"book": "sea_fairies", "genre": "Myths, Legends"}


def test_common_voice(tmp_path: Path) -> None:
    tones(tmp_path, "cy/clips/a.wav", "cy/clips/b.wav", "cy/clips/x/out.wav")
    head = "client_id\tpath\tsentence\tage\tgender\taccents\tlocale\n"
    (tmp_path / "cy/train.tsv").write_text(head + 's1\ta.wav\tHe said "no\ttwenties\tmale\tGwynedd\tcy\n')
    (tmp_path / "cy/dev.tsv").write_text(head + "s2\tb.wav\tna\t\t\t\tcy\ns2\tx/out.wav\tout\t\t\t\tcy\n")
    (tmp_path / "cy/validated.tsv").write_text(head + "s1\ta.wav\tonce more\t\t\t\tcy\n")
    found = read(f"common_voice:{tmp_path}")
    assert {id: (u.split, u.speaker, u.text) for id, u in found.items()} == {
        "cy/a": ("train", "s1", 'He said "no'),
        "cy/b": ("valid", "s2", "na"),
    }
    assert found["cy/a"].labels == {"language": "cy", "gender": "male", "age": "twenties", "accent": "Gwynedd"}
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / "cy" / name).unlink()
    assert [u.text for u in read(f"common_voice:{tmp_path / 'cy'}").values()] == ["once more"]


def test_voxpopuli(tmp_path: Path) -> None:
    tones(
        tmp_path, "transcribed_data/fr/2012/2012-x.ogg", *(f"unlabelled_data/de/2010/d{n // 2}-x_{n}.ogg" for n in range(20))
    )
    (tmp_path / "transcribed_data/fr/asr_dev.tsv").write_text(
        "id\traw_text\tnormalized_text\tspeaker_id\tsplit\tgender\n2012-x\tOui.\toui\t77\tdev\tmale\n../y\t\t\t\t\t\n"
    )
    found = read(f"voxpopuli:{tmp_path}")
    first = found.pop("fr/2012-x")
    assert (first.split, first.speaker, first.text) == ("valid", "77", "oui")
    assert first.labels == {"language": "fr", "gender": "male"}
    sessions: dict[str, set[str]] = {}
    for id, utterance in found.items():
        assert utterance.labels == {"language": "de", "gender": ""}
        sessions.setdefault(id.partition("_")[0], set()).add(utterance.split)
    assert len(sessions) == 10 and all(len(splits) == 1 for splits in sessions.values())
    assert set.union(*sessions.values()) == {"train", "valid", "test"}
    assert set(read(f"voxpopuli:{tmp_path / 'unlabelled_data'}")) == set(found)


def test_audioset(tmp_path: Path) -> None:
    tones(tmp_path, "a/Yabc.wav", "a/-def_30.000_40.000.wav", "b/ghi_30.wav", "b/nobody.wav", "b/_jkl_30000.wav")
    (tmp_path / "eval_segments.csv").write_text(
        "# Segments csv created\n# num_ytids=4\n# YTID, start_seconds, end_seconds, positive_labels\n"
        'abc, 30.000, 40.000, "/m/1,/m/2"\n-def, 30.000, 40.000, "/m/1"\n'
        'ghi, 30.000, 40.000, "/m/3"\ngone, 0.0, 9.0, "/m/3"\n_jkl, 30.000, 40.000, "/m/2"\n'
    )
    (tmp_path / "class_labels_indices.csv").write_text('index,mid,display_name\n0,/m/1,"Speech"\n1,/m/2,"Dog, bark"\n')
    found = {id: (u.split, u.labels["class"]) for id, u in read(f"audioset:{tmp_path}").items()}
    assert found == {
        "a/Yabc": ("test", "Speech; Dog, bark"),
        "a/-def_30.000_40.000": ("test", "Speech"),
        "b/ghi_30": ("test", "/m/3"),
        "b/_jkl_30000": ("test", "Dog, bark"),
    }


def test_fsd50k(tmp_path: Path) -> None:
    tones(tmp_path, "FSD50K.dev_audio/1.wav", "FSD50K.dev_audio/2.wav", "FSD50K.eval_audio/3.wav")
    (tmp_path / "dev.csv").write_text('fname,labels,mids,split\n1,"Bark,Dog","/m/1",train\n2,Purr,"/m/2",val\n')
    (tmp_path / "eval.csv").write_text("fname,labels,mids\n3,Bark,/m/1\n")
    found = {id: (u.split, u.labels["class"]) for id, u in read(f"audioset:{tmp_path}").items()}
    assert list(found.values()) == [("train", "Bark; Dog"), ("valid", "Purr"), ("test", "Bark")]


def shard(file: Path, **members: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))


def test_shards(tmp_path: Path) -> None:
    sound = audio.wav(0.1 * np.sin(np.arange(8_000) * 0.05))
    shard(
        tmp_path / "set/train-0000.tar",
        **{
            "x/0001.wav": sound,
            "x/0001.txt": b" some words\n",
            "x/0001.cls": b"3",
            "x/0002.json": b'{"speaker_id": 7, "sentence": "more", "split": "dev", "extra": {"a": 1}}',
            "x/0002.mono.wav": sound,
            "x/0003.txt": b"no sound",
            "0004.wav": b"no sound either",
        },
    )
    found = corpus.find(f"shards:{tmp_path}")
    first, second = found.utterances()
    assert (first.id, first.split, first.text, first.speaker) == ("set/train-0000/x/0001", "train", "some words", "")
    assert (second.split, second.text, second.speaker) == ("valid", "more", "7")
    assert (first.labels, second.labels) == ({"class": "3"}, {"class": ""})
    assert np.allclose(audio.load(second.path).wave, 0.1 * np.sin(np.arange(8_000) * 0.05), atol=1e-4)
    assert found.left_out.startswith("1 of 3 sounds of shards:") and "'0004.wav' is not a sound file" in found.left_out


def test_links_in_a_shard_are_passed_over_and_compressed_ones_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.wav").write_bytes(audio.wav(np.zeros(8_000)))
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            about = tarfile.TarInfo("0.wav")
            about.type, about.linkname = kind, str(tmp_path / "secret.wav")
            archive.addfile(about)
    with pytest.raises(Refused, match="is not laid out as shards"):
        read(f"shards:{tmp_path}")
    with tarfile.open(tmp_path / "a.tar", "w:gz") as archive:
        archive.add(tmp_path / "secret.wav", "0.wav")
    with pytest.raises(Refused, match="has to be uncompressed first"):
        read(f"shards:{tmp_path}")


@pytest.mark.parametrize("kind", ["librispeech", "librilight", "common_voice", "voxpopuli", "audioset", "shards"])
def test_another_folder_is_refused_with_what_is_expected_and_what_was_found(kind: str, tmp_path: Path) -> None:
    tones(tmp_path, "a.wav", "b/c.wav")
    with pytest.raises(Refused, match=r"is not laid out as .+ expected.* It holds a.wav, b/\."):
        read(f"{kind}:{tmp_path}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refused, match="It holds nothing"):
        read(f"{kind}:{tmp_path / 'empty'}")
    for place in ("", str(tmp_path / "gone"), str(tmp_path / "a.wav")):
        with pytest.raises(Refused, match="There is no folder"):
            read(f"{kind}:{place}")


def test_what_cannot_be_read_is_left_out_and_counted(tmp_path: Path) -> None:
    place = tmp_path / "train-clean-100/19/198"
    tones(place, *(f"19-198-{take:04}.flac" for take in range(12)))
    (place / "19-198.trans.txt").write_text("19-198-0000 A\n")
    for take in range(11):
        (place / f"19-198-{take:04}.flac").write_bytes(b"damaged" * take)
    found = corpus.find(f"librispeech:{tmp_path}")
    assert len(list(found.utterances())) == 1
    assert found.left_out.startswith(
        f"11 of 12 sounds of librispeech:{tmp_path} cannot be used. '19-198-0000.flac' is empty."
    )
    assert found.left_out.endswith("... and 1 more.")
    (place / "19-198-0011.flac").write_bytes(b"this one too")
    with pytest.raises(Refused, match="12 of 12 sounds"):
        list(corpus.find(f"librispeech:{tmp_path}").utterances())


def test_a_training_notes_what_was_left_out(tmp_path: Path, workspace: Path) -> None:
    place = tmp_path / "train-clean-100/19/198"
    tones(place, *(f"19-198-{take:04}.flac" for take in range(4)))
    (place / "19-198.trans.txt").write_text("19-198-0000 A\n")
    (place / "19-198-0000.flac").write_bytes(b"damaged")
    ctx = Context(workspace, device="cpu")
    spec = Mockingjay(corpus=f"librispeech:{tmp_path}", features="mel", width=8, heads=1, inner=8, blocks=1, steps=1)
    spec.start(ctx)
    notes = [event.values["text"] for event in ctx.log.read()[0] if event.kind == "note"]
    assert len(notes) == 1 and notes[0].startswith("1 of 4 sounds")


def test_links_out_are_passed_over(tmp_path: Path) -> None:
    tones(tmp_path, "in/train-clean-100/19/198/19-198-0000.flac", "out.flac")
    place = tmp_path / "in/train-clean-100/19/198"
    (place / "19-198.trans.txt").write_text("19-198-0000 A\n")
    os.symlink(tmp_path / "out.flac", place / "19-198-0001.flac")
    os.symlink(place / "19-198-0000.flac", place / "19-198-0002.flac")
    assert [id[-4:] for id in read(f"librispeech:{tmp_path / 'in'}")] == ["0000", "0002"]


@pytest.mark.parametrize(
    ("name", "split"),
    [("train-clean-100", "train"), ("dev-other", "valid"), ("asr_test", "test"), ("unbalanced_train_segments", "train"),
     ("small", ""), ("shard.val.0001", "valid"), ("trained", "")],
)  # fmt: skip
def test_splits_by_name(name: str, split: str) -> None:
    assert split_named(name) == split
