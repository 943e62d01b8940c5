"""Labels of the sound for the rows of a corpus of tones whose pitch, loudness and times are known."""

import math
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch

from engine import audio, extract
from engine.errors import Refused, Unknown
from engine.run import Context
from probing import soundlabels

MANIFEST = """path,start,end,speaker
long.wav,0.0,1.0,a
long.wav,1.0,2.0,b
"""


@pytest.fixture
def ctx(workspace: Path) -> Context:
    return Context(workspace, device="cpu")


@pytest.fixture
def corpus(workspace: Path) -> str:
    """One file with two utterances: 200 Hz loud, then 100 Hz soft and, for its last half, silence."""
    time = torch.arange(16_000) / 16_000
    loud, soft = 0.5 * torch.sin(2 * math.pi * 200 * time), 0.05 * torch.sin(2 * math.pi * 100 * time)
    soft[8000:] = 0.0
    audio.save(workspace / "long.wav", torch.cat([loud, soft]))
    (workspace / "manifest.csv").write_text(MANIFEST, "utf-8")
    return f"manifest:{workspace / 'manifest.csv'}"


def semitones(hertz: float) -> float:
    return 12 * math.log2(hertz / 27.5)


def test_utterances_of_one_file_have_their_own_sound(ctx: Context, corpus: str) -> None:
    rows = extract.rows("mel", corpus, ctx, unit="utterance")
    pitch = soundlabels.values(rows, "pitch", ctx)
    assert pitch == pytest.approx([semitones(200), semitones(100)], abs=0.02)  # over voiced frames alone
    loud = soundlabels.values(rows, "loudness", ctx)
    assert loud[0] == pytest.approx(20 * math.log10(0.5) - 3.01, abs=0.1)
    assert loud[1] == pytest.approx((20 * math.log10(0.05) - 3.01 - 70) / 2, abs=1.0)
    assert soundlabels.values(rows, "zero crossings", ctx)[0] == pytest.approx(400 / 16_000, rel=0.02)


def test_a_row_of_a_frame_has_the_sound_of_its_time(ctx: Context, corpus: str) -> None:
    rows = extract.rows("mel", corpus, ctx, unit="frame")
    found = soundlabels.means(corpus, rows.index, ["loudness", "pitch"], ctx)
    second = rows.index["utterance"] == rows.index["utterance"].iloc[-1]
    silent = second & (rows.index["start"] > 0.56)
    assert silent.sum() > 10 and set(found["loudness"][silent]) == {-70.0}
    assert np.isnan(found["pitch"][silent]).all()
    assert found["pitch"][~second] == pytest.approx(np.full((~second).sum(), semitones(200)), abs=0.05)


def test_the_rate_counts_phones_from_the_first_to_the_last(ctx: Context) -> None:
    name = "spoken:digits?voices=3&takes=1"
    rows = extract.rows("mel", name, ctx, unit="utterance")
    phones = extract.rows("mel", name, ctx, unit="phone").index
    rate = soundlabels.values(rows, "rate", ctx)
    for utterance, found in zip(rows.index["utterance"], rate, strict=True):
        mine = phones[(phones["utterance"] == utterance) & (phones["phone"] != "sil")]
        assert found == pytest.approx(len(mine) / (mine["end"].max() - mine["start"].min()))
    fast, slow = (rate[rows.index["rate"] == wish] for wish in ("195", "145"))
    assert fast.mean() > 1.15 * slow.mean()


def test_the_noise_of_a_corpus_is_found(ctx: Context) -> None:
    rows = extract.rows("mel", "spoken:digits?voices=3&takes=1&noise=0,20", ctx, unit="utterance")
    found = soundlabels.values(rows, "signal to noise", ctx)
    for wish in ("0", "20"):
        assert np.median(found[rows.index["noise"] == wish]) == pytest.approx(float(wish), abs=1.0)


def test_what_is_not_there_is_said(ctx: Context, corpus: str) -> None:
    rows = extract.rows("mel", corpus, ctx, unit="utterance")
    with pytest.raises(Refused, match="neither phone nor word times"):
        soundlabels.values(rows, "rate", ctx)
    with pytest.raises(Unknown, match="label of the sound called 'pich'. Did you mean pitch"):
        soundlabels.values(rows, "pich", ctx)
    gone = pandas.DataFrame({"utterance": ["nobody"], "start": [0.0], "end": [1.0]})
    with pytest.raises(Refused, match="no utterance 'nobody' any more"):
        soundlabels.means(corpus, gone, ["loudness"], ctx)
