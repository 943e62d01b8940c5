"""The bundled clips are what their recipe makes."""

import json
from pathlib import Path

import numpy as np

from engine import audio
from engine.synthesis import clips


def test_the_recipe_makes_the_bundled_clips(tmp_path: Path) -> None:
    clips.make(tmp_path)
    assert json.loads((tmp_path / "clips.json").read_text("utf-8")) == json.loads(
        (clips.FOLDER / "clips.json").read_text("utf-8")
    )
    for file in clips.RECIPE:
        made, kept = audio.load(tmp_path / file), audio.load(clips.FOLDER / file)
        assert np.abs((made.wave - kept.wave).numpy()).max() <= 2 / 32_768  # another processor may round otherwise
        assert 3 <= kept.seconds <= 8 and not kept.changes


def test_their_times_fit() -> None:
    for clip in json.loads((clips.FOLDER / "clips.json").read_text("utf-8")):
        seconds = audio.probe(clips.FOLDER / clip["file"]).seconds
        phones, words = clip["tiers"]["phone"], clip["tiers"]["word"]
        assert phones[0][0] == 0 and abs(phones[-1][1] - seconds) < 1e-4
        assert " ".join(label for _, _, label in words) == clip["text"].replace(",", "").replace(".", "").lower()
