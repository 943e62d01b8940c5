"""Every way of writing timed labels, read to the same spans."""

from pathlib import Path

import pytest

from engine import tiers
from engine.corpus import Span
from engine.errors import Refused

WANTED = [Span(0.0, 0.5, "a"), Span(0.5, 1.25, "b c")]
LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1.25
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 1.25
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 0.5
            text = "a"
        intervals [2]:
            xmin = 0.5
            xmax = 1.25
            text = "b c"
        intervals [3]:
            xmin = 1.25
            xmax = 1.25
            text = ""
    item [2]:
        class = "TextTier"
        name = "Clicks"
        xmin = 0
        xmax = 1.25
        points: size = 1
        points [1]:
            number = 0.3
            mark = "x = 5 ""said"" so"
"""
SHORT = """"ooTextFile"
"TextGrid"
0
1.25
<exists>
1
"IntervalTier"
"Phone"
0
1.25
2
0
0.5
"a"
0.5
1.25
"b c"
"""
WRITTEN = {
    "a.tsv": "0\t0.5\ta\n0.5\t1.25\tb c\n",
    "header.tsv": "start_s\tend_s\tword\tspeaker\n0.5\t1.25\tb c\t1\n\t\tlost\t1\n0\t0.5\ta\t2\n",
    "other.tsv": "label\tbegin\tend\na\t0\t.5\nb c\t.5\t1.25\n",
    "a.csv": "start,end,label\n0,0.5,a\n0.5,1.25,b c\n",
    "a.jsonl": '{"start": 0, "end": 0.5, "label": "a"}\n[0.5, 1.25, "b c"]\n',
    "one.jsonl": '[0, 0.5, "a"]\n[0.5, 1.25, "b c"]\n',
    "a.json": '[[0, 0.5, "a"], {"start": 0.5, "end": 1.25, "label": "b c"}]',
    "long.TextGrid": LONG,
    "short.TextGrid": SHORT,
    "a.phn": "0 8000 a\n8000 20000 b c\n",
}


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_form(name: str, encoding: str) -> None:
    assert tiers.parse(WRITTEN[name].encode(encoding), name, "phone") == {"phone": WANTED}


def test_rttm_takes_the_lines_of_its_sound() -> None:
    line = "SPEAKER {} 1 {} {} <NA> <NA> {} <NA> <NA>\n"
    rows = [("a", 1.5, 1.0, "ann"), ("b", 0, 9, "bob"), ("a", 0.0, 2.0, "eve")]
    text = "".join(line.format(*row) for row in rows) + "SPKR-INFO a\n"
    found = tiers.parse(text.encode(), "x.rttm", "speaker", "a")
    assert found == {"speaker": [Span(0.0, 2.0, "eve"), Span(1.5, 2.5, "ann")]}


def test_what_cannot_be_read_is_said() -> None:
    for name, text in {
        "a.tsv": "0\tx\ta\n",
        "b.tsv": "0\n",
        "c.tsv": "1\t0.5\ta\n",
        "d.tsv": "nan\t1\ta\n",
        "e.json": '{"start": 0}',
        "f.TextGrid": "hello",
        "g.TextGrid": LONG[:300],
        "h.phn": "0 a b\n",
        "i.rttm": "SPEAKER a 1 0\n",
        "j.jsonl": "[0, 1]\n",
    }.items():
        with pytest.raises(Refused, match=name.replace(".", r"\.")):
            tiers.parse(text.encode(), name, "phone", "a")
    with pytest.raises(Refused, match="UTF-8"):
        tiers.parse(b"\xe9\xe8", "a.tsv", "phone")


def test_spans_are_cut_to_their_utterance() -> None:
    spans = [Span(0, 1, "a"), Span(1, 2, "b"), Span(2, 3, "c")]
    assert tiers.fit(spans, 0.5, 1.0) == (Span(0.0, 0.5, "a"), Span(0.5, 1.0, "b"))


def test_files_beside_a_sound(tmp_path: Path) -> None:
    for name in ("a.wav", "a.PHN", "a.wrd", "b.TextGrid", "c.txt"):
        (tmp_path / name).touch()
    assert tiers.beside([tmp_path]) == {
        tmp_path / "a": [tmp_path / "a.PHN", tmp_path / "a.wrd"],
        tmp_path / "b": [tmp_path / "b.TextGrid"],
    }
