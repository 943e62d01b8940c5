"""Real recordings: every shared set is read as it is."""

import csv
import tarfile
from pathlib import Path

import pytest

from engine import audio, corpus

# The tiers that each set has, where it has any: how many of its clips carry them.
TIERS = {
    "ami_diarization": {"speaker": 8},
    "sim_conversations_derived": {"speaker": 6},
    "leopard_multilingual": {"word": 8},
    "mboshi_mini": {"phone": 24},
}
SETS = [
    "ami_diarization",
    "coffee_slu_en",
    "esc10_fold1",
    "fsdd_digits",
    "kerstin_de",
    "leopard_multilingual",
    "librosa_examples",
    "ljspeech_en",
    "mboshi_mini",
    "nemo_pl_emotion",
    "sax_notes",
    "se_pairs_derived",
    "sim_conversations_derived",
    "speechbrain_phones_en",
    "speechocean_en_l2",
    "spoof_derived",
    "ss_mixtures_derived",
    "wakeword_en",
]


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_read_as_it_is(shared_data: Path, name: str) -> None:
    with (shared_data / name / "manifest.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    found = corpus.find(f"manifest:{shared_data / name}")
    utterances = list(found.utterances())
    assert len(utterances) == len(lines)
    for utterance, line in zip(utterances, lines, strict=True):
        assert utterance.path == (shared_data / name / line["path"]).resolve()
        assert utterance.split == line["split"]
        assert utterance.speaker == line.get("speaker", "") and utterance.text == line.get("text", "").strip()
        assert utterance.seconds == pytest.approx(float(line["duration_s"]), abs=0.002)
        assert utterance.labels.get("label") == line.get("label")
    counts: dict[str, int] = {}
    for utterance in utterances:
        for tier, spans in utterance.tiers.items():
            counts[tier] = counts.get(tier, 0) + 1
            assert all(0 <= span.start < span.end <= utterance.seconds for span in spans)
    assert counts == TIERS.get(name, {})
    assert len(found.content) == 64
    for utterance in utterances[:: max(1, len(utterances) // 5)]:
        sound = audio.load(utterance.path)
        assert sound.seconds == pytest.approx(utterance.seconds, abs=0.001) and float(sound.wave.abs().max()) > 0.001


def test_the_list_is_whole(shared_data: Path) -> None:
    assert sorted(path.parent.name for path in shared_data.glob("*/manifest.csv")) == SETS


def test_turns_of_a_meeting(shared_data: Path) -> None:
    first = next(iter(corpus.find(f"manifest:{shared_data / 'ami_diarization'}").utterances()))
    turn = first.tiers["speaker"][0]
    assert (turn.start, turn.end, turn.label) == (1.44, 13.312, "MEE009")


def test_a_folder_of_classes(shared_data: Path) -> None:
    utterances = list(corpus.find(f"folder:{shared_data / 'esc10_fold1' / 'audio'}").utterances())
    assert len(utterances) == 40 and len({utterance.labels["class"] for utterance in utterances}) == 10


def test_a_set_laid_out_anew(shared_data: Path, tmp_path: Path) -> None:
    """As FSD50K keeps its own, and in a shard: the seconds, classes and samples are those of the manifest."""
    source = shared_data / "esc10_fold1"
    known = {u.path.stem: u for u in corpus.find(f"manifest:{source}").utterances()}
    (tmp_path / "clips").mkdir()
    with (tmp_path / "train.csv").open("w", newline="") as file, tarfile.open(tmp_path / "train.tar", "w") as archive:
        lines = csv.writer(file)
        lines.writerow(["fname", "labels"])
        for stem, utterance in known.items():
            (tmp_path / "clips" / utterance.path.name).write_bytes(utterance.path.read_bytes())
            archive.add(utterance.path, utterance.path.name)
            lines.writerow([stem, utterance.labels["label"]])
    for name in (f"audioset:{tmp_path}", f"shards:{tmp_path}"):
        found = list(corpus.find(name).utterances())
        assert len(found) == len(known)
        for utterance in found:
            same = known[utterance.path.stem]
            assert utterance.seconds == same.seconds
            assert utterance.labels.get("class", same.labels["label"]) == same.labels["label"]
        sound = found[-1]
        assert audio.load(sound.path).wave.equal(audio.load(known[sound.path.stem].path).wave)
