"""What the cards of every source agree in, and that what they say of networks that are not here is true."""

import re
from collections import defaultdict

import pytest
import torch

from engine import upstream
from engine.nets import wrapped
from engine.nets.describing import parameters
from engine.nets.wav2vec2 import Shape, Wav2Vec2
from engine.upstream import Card
from engine.upstreams import huggingface, lighthubert, microsoft, torchaudio
from engine.upstreams.huggingface import Described

# Whose authors name no licence of their own.
UNLICENSED = {"hf:facebook/encodec_24khz", "hf:facebook/encodec_32khz"}
# Papers that present models of several kinds: SEW and SEW-D, and the Japanese ones.
OF_SEVERAL = {"Wu et al. 2022, arXiv:2109.06870", "Sawada et al. 2024, arXiv:2404.01657"}
PAPER = re.compile(r"arXiv:\d{4}\.\d{4,5}$")


def test_a_paper_belongs_to_one_family_whatever_the_source() -> None:
    families: dict[str, set[str]] = defaultdict(set)
    for card in upstream.cards():
        if card.paper and card.paper not in OF_SEVERAL and card.family != "Trained here":
            families[card.paper].add(card.family)
    assert {paper: names for paper, names in families.items() if len(names) > 1} == {}


def test_one_kind_of_model_has_one_name_in_every_source() -> None:
    cards = {card.name: card.family for card in upstream.cards()}
    assert {
        cards[name] for name in ("torchaudio:HUBERT_BASE", "hf:facebook/hubert-base-ls960", "author:hubert_base_ls960")
    } == {"HuBERT"}
    assert {cards[name] for name in ("torchaudio:WAV2VEC2_XLSR53", "hf:facebook/mms-300m", "author:xlsr_53_56k")} == {
        "wav2vec 2.0"
    }
    assert {cards[name] for name in ("s3prl:distilhubert", "hf:ntu-spml/distilhubert")} == {"DistilHuBERT"}
    assert all(family[:1] and family == family.strip() for family in cards.values())


def common() -> list[Card]:
    return list(huggingface.common().values())


def test_cards_of_the_hub_tell_everything() -> None:
    for card in [*common(), *torchaudio.known()]:
        assert card.about and card.data and PAPER.search(card.paper), card.name
        assert bool(card.license) != (card.name in UNLICENSED), card.name
        assert card.parameters > 1_000_000 and 1.9 * card.parameters < card.bytes < 30 * card.parameters, card.name
        assert len(card.dims) == card.layers + 1 and card.hop > 0 and card.shortest > 0 and card.open is not None
        assert all(re.fullmatch("[a-z]{2}|many", language) for language in card.languages), card.name


def test_titles_of_the_hub_are_told_apart() -> None:
    titles = [re.split(r"[,:;.](?:\s|$)", card.about)[0] for card in common()]
    assert max(map(len, titles)) <= 36
    alike = {title for title in titles if titles.count(title) > 1}
    assert alike == set()


def test_the_table_of_the_hub_is_asked_before_anything_is_here() -> None:
    card = upstream.find("hf:openai/whisper-large-v3")
    assert (card.layers, card.dims[0], card.window, card.family, card.here) == (32, 1280, 30.0, "Whisper", False)
    card = upstream.find("hf:descript/dac_44khz")
    assert (card.layers, card.dims, card.hop, card.sample_rate) == (0, (1024,), 512, 44_100)
    assert [tap.dim for tap in card.taps if tap.codes] == [9]
    codes = {card.name: [tap for tap in card.taps if tap.codes] for card in common()}
    assert codes["hf:facebook/wav2vec2-base"] and not codes["hf:facebook/wav2vec2-base-960h"]


@pytest.mark.parametrize("repository", sorted(huggingface.common()))
def test_numbers_of_the_hub_are_those_of_the_networks(repository: str) -> None:
    card = huggingface.common()[repository]
    described = Described(huggingface.table()[repository]["config"], {})
    with torch.device("meta"):
        if described.config["model_type"] == "sew-d":
            made = sum(number.numel() for number in wrapped.made(described.config).parameters())
        else:
            made = parameters(described.net.build(card, described.config, {}))
    assert card.parameters == made


def test_numbers_of_other_sources_are_those_of_the_networks() -> None:
    cards = {card.name: card for card in upstream.cards()}
    shapes = {f"torchaudio:{name}": shape for name, shape in torchaudio.SHAPES.items()}
    shapes |= {f"author:{name}": shape for name, shape, *_ in microsoft.KNOWN if not name.startswith("wavlm")}
    shapes |= {
        f"author:lighthubert_{name}": Shape(dim, 12, heads, inner, lighthubert.CONVOLUTIONS)
        for name, (dim, heads, inner), *_ in lighthubert.KNOWN
    }
    made: dict[object, int] = {}
    for name, shape in shapes.items():
        if shape not in made:
            with torch.device("meta"):
                made[shape] = parameters(Wav2Vec2(cards[name], shape))
        assert cards[name].parameters == made[shape], name
