"""Recordings in pieces: nothing is lost between them, and none is shorter than the network needs."""

from pathlib import Path

import pytest

from engine.corpus import Utterance
from engine.errors import Refused
from engine.pretext import Sound


def clips(*seconds: float) -> list[Utterance]:
    return [Utterance(str(number), Path("x.wav"), each, start=2.0) for number, each in enumerate(seconds)]


def test_a_long_clip_is_cut_into_equal_pieces_that_cover_it() -> None:
    sound = Sound(clips(3.5, 1.0, 0.9), 0.1, 1.0)
    assert [piece.seconds for piece in sound.pieces] == pytest.approx([0.875] * 4 + [1.0, 0.9])
    assert [piece.start for piece in sound.pieces] == pytest.approx([2.0, 2.875, 3.75, 4.625, 2.0, 2.0])
    assert sound.seconds == [piece.seconds for piece in sound.pieces]


def test_pieces_that_are_too_short_are_left_out_and_nothing_left_is_said() -> None:
    assert len(Sound(clips(0.05, 0.5), 0.1, 1.0)) == 1
    with pytest.raises(Refused, match="None of the 2 clips, in pieces of at most 0.05 s, is as long as 100 ms"):
        Sound(clips(0.4, 0.5), 0.1, 0.05)


def test_enough_is_enough() -> None:
    assert len(Sound(clips(*[1.0] * 50), 0.1, 15.0, 10.0)) == 10
