"""What the pages say about a model."""

from dataclasses import replace
from typing import Any

import pytest

from app import cards
from engine import upstream
from engine.hub import Entry
from engine.upstream import Card, Tap


def entry(here: int = 0, partial: int = 0, own: bool = False, **facts: Any) -> Entry:
    card = upstream.find("torchaudio:HUBERT_BASE")
    return Entry(replace(card, **{"here": bool(here), **facts}), here, partial, own)


def test_facts_are_words_and_gaps_are_named() -> None:
    bare = {
        label: (text, address) for label, text, address in cards.facts(entry(license="", data="", paper="", parameters=0))
    }
    assert bare["Licence"] == bare["Trained on"] == bare["Weights"] == ("not known", "")
    taps = (Tap("conv1", 512, 5), Tap("conv2", 512, 10), Tap("codes", 2, 320, codes=True, entries=320))
    full = cards.facts(
        entry(here=378_000_000, paper="Hsu et al. 2021, arXiv:2106.07447", parameters=94_371_712, taps=taps, window=30.0)
    )
    facts = {label: (text, address) for label, text, address in full}
    assert facts["Paper"] == ("Hsu et al. 2021, arXiv:2106.07447", "https://arxiv.org/abs/2106.07447")
    assert facts["Weights"] == ("94,371,712", "") and facts["On disk"] == ("378 MB", "")
    assert facts["Taps"][0] == "conv1 to conv2; codes, 2 of 320"
    assert facts["Layers"][0] == "12 blocks; 13 states of 768 numbers"
    assert facts["Frames"][0] == "one every 20 ms (320 samples at 16,000 Hz); shortest clip 25 ms"
    assert facts["Long clips"][0] == "heard in overlapping windows of 30 s"
    assert facts["From"][1].startswith("https://") and "To fetch" not in facts
    # What has learnt nothing has no licence to be not known.
    spectral = {label for label, _, _ in cards.facts(Entry(upstream.find("fbank"), 0, 0, False))}
    assert "Layers" in spectral and "Trained on" not in spectral and "Weights" not in spectral


def test_an_address_of_another_kind_is_no_link() -> None:
    facts = cards.facts(entry(source="javascript:alert(1)"))
    assert ("From", "javascript:alert(1)", "") in facts


@pytest.mark.parametrize(
    ("about", "title", "rest"),
    [
        ("wav2vec 2.0 Base, 960 h of English.", "wav2vec 2.0 Base", "960 h of English."),
        ("XLSR-53: wav2vec 2.0 Large.", "XLSR-53", "wav2vec 2.0 Large."),
        ("A sentence that is much too long to be a name of anything.", "HUBERT_BASE", None),
        ("", "HUBERT_BASE", ""),
    ],
)
def test_a_model_is_called_by_the_head_of_its_sentence(about: str, title: str, rest: str | None) -> None:
    assert cards.title(entry(about=about)) == (title, about if rest is None else rest)


@pytest.mark.parametrize(
    ("given", "mark", "freed"),
    [
        ({}, "away", ""),
        ({"partial": 5_000_000}, "part", "5.0 MB"),
        ({"here": 1_500}, "here", "1.5 kB"),
        ({"here": 7, "own": True}, "own", ""),
        ({"here": 7, "fetch": None}, "built in", ""),
        ({"here": 7, "fetch": None, "name": "job:1"}, "trained", ""),
    ],
)
def test_where_a_model_is(given: dict[str, Any], mark: str, freed: str) -> None:
    model = cards.model(entry(**given))
    assert (model["mark"], model["freed"]) == (mark, freed)


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 bytes"), (999, "999 bytes"), (1_234, "1.2 kB"), (999_600, "1.0 MB"), (378e6, "378 MB"), (1.26e9, "1.3 GB")],
)
def test_sizes_are_read_by_people(count: float, said: str) -> None:
    assert cards.size(count) == said


@pytest.mark.parametrize(
    ("count", "said"), [(512, "512"), (94_371_712, "94 M"), (4_100_000, "4.1 M"), (2_160_000_000, "2.2 G")]
)
def test_numbers_are_read_by_people(count: int, said: str) -> None:
    assert cards.number(count) == said


def test_a_card_of_any_kind_is_told() -> None:
    card: Card = replace(
        upstream.find("fbank"), dims=(80,), languages=("many",), license="<b>none</b>", differentiable=False
    )
    model = cards.model(Entry(card, 0, 0, False))
    assert model["shape"] == "80 features" and model["languages"] == ["many"]
    assert ("Gradient", "does not reach the sound", "") in model["facts"] and ("Licence", "<b>none</b>", "") in model[
        "facts"
    ]
