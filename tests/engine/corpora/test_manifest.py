"""Manifests as people write them, good and bad."""

import os
from pathlib import Path

import numpy as np
import pytest

from engine import audio
from engine.corpora.manifest import Manifest
from engine.corpus import Span, Utterance
from engine.errors import Refused


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    for index in range(4):
        audio.save(folder / f"{index}.wav", np.full(16_000, 0.01 * index))
    return folder


def _read(folder: Path, text: str, name: str = "manifest.csv") -> list[Utterance]:
    (folder / name).write_text(text, "utf-8")
    return list(Manifest(str(folder / name)).utterances())


def _problems(folder: Path, text: str) -> str:
    with pytest.raises(Refused) as caught:
        _read(folder, text)
    return str(caught.value)


def test_everything_at_once(folder: Path) -> None:
    (folder / "p.tsv").write_text("0\t.25\ta\n.25\t.5\tb\n.5\t1\tc\n")
    (utterance,) = _read(
        folder,
        "\ufeffpath,id,start,end,split,speaker,text,emotion,phones,words,duration_s\n"
        '0.wav,one,0.25,0.75,DEV,ann,"Hello, you",joy,p.tsv,"[[0.1, 0.3, ""x""]]",1.0\n',
    )
    assert utterance == Utterance(
        id="one",
        path=folder / "0.wav",
        seconds=0.5,
        split="valid",
        speaker="ann",
        text="Hello, you",
        start=0.25,
        end=0.75,
        labels={"emotion": "joy"},
        tiers={"phone": (Span(0.0, 0.25, "b"), Span(0.25, 0.5, "c")), "word": (Span(0.0, pytest.approx(0.05), "x"),)},
    )


def test_only_paths(folder: Path) -> None:
    utterances = _read(folder, "path\n0.wav\n1.wav\n\n2.wav\n3.wav\n")
    assert [utterance.id for utterance in utterances] == ["0", "1", "2", "3"]
    assert sorted(utterance.split for utterance in utterances) == ["test", "train", "train", "valid"]
    assert _read(folder, "path\tlabel\n0.wav\tx,y\n", "m.tsv")[0].labels == {"label": "x,y"}


def test_one_file_cut_in_pieces(folder: Path) -> None:
    utterances = _read(folder, "path,start,end\n0.wav,0,0.5\n0.wav,0.5,\n")
    assert [(u.id, u.seconds) for u in utterances] == [("0@0", 0.5), ("0@0.5", 0.5)]


def test_a_string_of_phones_is_a_label_and_a_file_of_them_a_tier(folder: Path) -> None:
    utterances = _read(folder, "path,phones\n0.wav,a b c\n1.wav,d\n")
    assert utterances[0].labels == {"phones": "a b c"} and not utterances[0].tiers
    grid = [
        '"ooTextFile"',
        '"TextGrid"',
        "0",
        "1",
        "<exists>",
        "1",
        '"IntervalTier"',
        '"words"',
        "0",
        "1",
        "1",
        "0",
        "1",
        '"w"',
    ]
    (folder / "a.TextGrid").write_text("\n".join(grid))
    utterances = _read(folder, "path,grid\n0.wav,a.TextGrid\n1.wav,\n")
    assert utterances[0].tiers == {"word": (Span(0.0, 1.0, "w"),)} and not utterances[1].tiers


def test_corpus_yaml_names_columns(folder: Path) -> None:
    (folder / "corpus.yaml").write_text(
        "manifest: list.csv\naudio: ..\ncolumns: {path: file, split: fold, speaker: who}\nignore: [noise]\nseed: 3\n"
    )
    (folder / "list.csv").write_text("file,fold,who,noise,mood\nset/0.wav,test,ann,x,glad\n")
    (utterance,) = Manifest(str(folder)).utterances()
    assert (utterance.split, utterance.speaker, utterance.labels) == ("test", "ann", {"mood": "glad"})
    before = Manifest(str(folder)).content
    (folder / "corpus.yaml").write_text((folder / "corpus.yaml").read_text().replace("seed: 3", "seed: 4"))
    assert Manifest(str(folder)).content != before
    for bad in ("- a\n", "columns: 3\n", "colums: {}\n", "a: [\n"):
        (folder / "corpus.yaml").write_text(bad)
        with pytest.raises(Refused, match=r"corpus\.yaml"):
            list(Manifest(str(folder)).utterances())


def test_all_problems_with_their_lines(folder: Path) -> None:
    said = _problems(
        folder,
        "path,start,end,split,tier\n"
        "0.wav,0,,train,\n"
        "none.wav,0,,train,\n"
        "1.wav,x,,train,\n"
        "1.wav,0,9,train,\n"
        "1.wav,0.5,0.5,train,\n"
        "1.wav,0,,tset,\n"
        "1.wav,0\n"
        ",0,,train,\n"
        "0.wav,0,,train,\n"
        "2.wav,0,,train,gone.tsv\n",
    )
    for part in [
        "has 9 problems",
        "Line 3: There is no file",
        "Line 4: start 'x'",
        "Line 5: '1.wav' lasts 1.000 s",
        "Line 6:",
        "Line 7: The split 'tset'",
        "Line 8: 2 cells where the header has 5",
        "Line 9: the path is empty",
        "Line 10: the id '0@0' is that of line 2 too",
        "Line 11: 'gone.tsv' cannot be read",
    ]:
        assert part in said, said


def test_many_problems_are_counted(folder: Path) -> None:
    said = _problems(folder, "path\n" + "".join(f"no{index}.wav\n" for index in range(500)))
    assert "has 500 problems" in said and said.endswith("... and 490 more.") and len(said) < 2_000


def test_labels_beyond_the_end(folder: Path) -> None:
    (folder / "t.tsv").write_text("0\t9\ta\n")
    assert "goes on to 9.00 s" in _problems(folder, "path,words\n0.wav,t.tsv\n")


@pytest.mark.parametrize("path", ["../secret.wav", "/etc/passwd", "link.wav", "sub/../../secret.wav", "linked/secret.wav"])
@pytest.mark.parametrize("column", ["path", "words"])
def test_nothing_outside_the_folder_is_read(folder: Path, path: str, column: str) -> None:
    suffix = "wav" if column == "path" else "tsv"
    secret = folder.parent / f"secret.{suffix}"
    secret.write_text("0\t1\tcanary\n")
    os.symlink(secret, folder / f"link.{suffix}")
    os.symlink(folder.parent, folder / "linked")
    path = path.replace(".wav", f".{suffix}")
    path = str(secret) if path.startswith("/") else path
    said = _problems(folder, f"path\n{path}\n" if column == "path" else f"path,words\n0.wav,{path}\n")
    assert "lies outside" in said and "canary" not in said


def test_files_that_are_no_manifest(folder: Path) -> None:
    assert "no column 'path'" in _problems(folder, "file,label\n0.wav,x\n")
    assert "no column 'path'" in _problems(folder, "")
    assert "two columns 'a'" in _problems(folder, "path,a,a\n0.wav,1,2\n")
    assert "names no sound" in _problems(folder, "path\n")
    assert "Line" in _problems(folder, 'path\n"0.wav\n')
    (folder / "manifest.csv").write_bytes(b"path\n\xe9.wav\n")
    with pytest.raises(Refused, match=r"not UTF-8 \(line 2\)"):
        list(Manifest(str(folder)).utterances())
    for place in ("", str(folder / "gone.csv"), str(folder.parent)):
        with pytest.raises(Refused, match="There is no"):
            list(Manifest(place).utterances())


def test_content_follows_labels_and_times(folder: Path) -> None:
    (folder / "t.tsv").write_text("0\t1\ta\n")
    _read(folder, "path,words,mood\n0.wav,t.tsv,glad\n")
    seen = {Manifest(str(folder)).content}
    (folder / "t.tsv").write_text("0\t0.9\ta\n")
    seen.add(Manifest(str(folder)).content)
    _read(folder, "path,words,mood\n0.wav,t.tsv,sad\n")
    seen.add(Manifest(str(folder)).content)
    (folder / "0.phn").write_text("0 16000 x\n")
    seen.add(Manifest(str(folder)).content)
    assert len(seen) == 4
