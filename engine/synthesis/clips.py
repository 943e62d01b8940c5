"""The sample clips in assets/clips, and the recipe that made them: `python -m engine.synthesis.clips` makes them anew.

clips.json holds a list of {"file", "title", "text", "voice", "tiers": {"phone" and "word": [[start, end, label], ...]}}.
"""

import json
from pathlib import Path

import numpy as np

from engine import audio
from engine.run import write_text
from engine.settings import HOUSE
from engine.synthesis import conditions, speech

FOLDER = HOUSE / "assets" / "clips"
SENTENCE = "A large ship sank near the coast, and nobody knew why the light was out."
PAIRS = "Sheep, ship. Rock, lock. Pat, bat. Thick, sick."

# File -> title, text, voice, signal-to-noise ratio in dB.
RECIPE: dict[str, tuple[str, str, str, float | None]] = {
    "woman.wav": ("A sentence, a woman's voice", SENTENCE, "linda", None),
    "man.wav": ("The same sentence, a man's voice", SENTENCE, "m3", None),
    "pairs.wav": ("Words that differ in one sound, in a noisy room", PAIRS, "m7", 20.0),
}


def make(folder: Path = FOLDER) -> None:
    """Write the clips and what is known of them."""
    folder.mkdir(parents=True, exist_ok=True)
    about = []
    for file, (title, text, voice, noise) in RECIPE.items():
        made = next(speech.say([speech.Text(text, voice=voice, rate=160)]))
        wave = made.wave
        if noise is not None:
            random = np.random.default_rng(0)
            wave = conditions.add_room(wave, "small", random)
            wave = conditions.add_noise(wave, conditions.pink(len(wave), random), noise)
        audio.save(folder / file, wave)
        spans = {"phone": made.phones, "word": made.words}
        tiers = {tier: [[span.start, span.end, span.label] for span in labels] for tier, labels in spans.items()}
        about.append({"file": file, "title": title, "text": text, "voice": voice, "tiers": tiers})
    lines = ",\n".join(json.dumps(clip, ensure_ascii=False) for clip in about)
    write_text(folder / "clips.json", f"[\n{lines}\n]\n")


if __name__ == "__main__":
    make()
