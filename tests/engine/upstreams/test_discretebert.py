from collections.abc import Callable
from pathlib import Path
from typing import Any

import golden
import pytest
import torch
from checkpoints import discretebert, wav2vec

from engine import checkpoint, upstream
from engine.errors import Refused
from engine.settings import settings
from engine.upstreams.discretebert import shape
from engine.weights import Checkpoint

GOLDEN = Path(__file__).parent / "golden" / "discretebert.json"


@pytest.mark.parametrize("layout", ["older fairseq", "s3prl"])
@torch.inference_mode()
def test_states_are_those_of_the_authors_networks(layout: str, tmp_path: Path) -> None:
    model = upstream.load(discretebert.save(tmp_path, layout))
    golden.check(model.encode([golden.sound(5_000)]).clip(0), GOLDEN, "one window")


@torch.inference_mode()
def test_words_are_multiplied_where_the_settings_say_so(tmp_path: Path) -> None:
    name = discretebert.save(tmp_path, "fairseq")
    held = torch.load(tmp_path / "bert.pt", weights_only=False)
    held["args"].no_scale_embedding = False
    held["model"]["encoder.sentence_encoder.embed_tokens.weight"] /= discretebert.DIM**0.5
    torch.save(held, tmp_path / "bert.pt")
    golden.check(upstream.load(name).encode([golden.sound(5_000)]).clip(0), GOLDEN, "one window")


@torch.inference_mode()
def test_codes_are_those_of_the_whole_clip_and_windows_are_sentences(tmp_path: Path) -> None:
    model = upstream.load(discretebert.save(tmp_path, "fairseq"))
    clip = golden.sound(16_000)  # 98 frames, of which 38 are heard at once
    (codes,) = model.tap([clip], "codes")["codes"]
    coder = upstream.load(wav2vec.save(tmp_path / "coder", wav2vec.SETTINGS["kmeans"], "fairseq"))
    assert torch.equal(codes, coder.tap([clip], "codes")["codes"][0])

    words = {word: number for number, word in enumerate(discretebert.PAIRS, start=4)}
    assert {f"{a}-{b}" for a, b in codes.tolist()} - words.keys()  # some pairs have no word of their own
    state = discretebert.weights()
    numbers = torch.tensor([words.get(f"{a}-{b}", 3) for a, b in codes.tolist()])
    first = state["encoder.sentence_encoder.embed_tokens.weight"][numbers[:38]]
    first = first + state["encoder.sentence_encoder.embed_positions.weight"][3:41]
    norm = [state[f"encoder.sentence_encoder.layernorm_embedding.{kind}"] for kind in ("weight", "bias")]
    states = model.encode([clip]).clip(0)
    assert len(states[0]) == 98
    # Two windows share 8 frames: the first gives all but the last 4 of its own.
    expected = torch.nn.functional.layer_norm(first, (discretebert.DIM,), *norm)
    torch.testing.assert_close(states[0][:34], expected[:34])
    assert not torch.allclose(states[0][34:38], expected[34:38])


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (remove("dict.txt"), "is BERT over codes, but dict.txt, its dictionary, does not lie beside it."),
        (remove("vq-wav2vec_kmeans.pt"), "put vq-wav2vec_kmeans.pt beside it, or fetch author:vq-wav2vec_kmeans."),
        (write("dict.txt", "0-0\n0-1\n"), "is damaged: each line should be a word of its own and its count."),
        (write("dict.txt", "0-1 9\n0-1 8\n"), "is damaged: each line should be a word of its own and its count."),
        (write("dict.txt", "hello 9\nworld 8\n"), "has no word that stands for codes"),
        (write("dict.txt", "0-1 9\n0-2 8\n"), "knows 24 words, its dictionary 7: they do not belong together."),
    ],
)
def test_what_is_missing_beside_it_is_said(spoil: Callable[[Path], object], said: str, tmp_path: Path) -> None:
    name = discretebert.save(tmp_path, "fairseq")
    spoil(tmp_path)
    with pytest.raises(Refused) as caught:
        upstream.load(name)
    assert said in str(caught.value)


def test_a_wav2vec_without_codes_is_refused(tmp_path: Path) -> None:
    name = discretebert.save(tmp_path, "fairseq", kind="plain")
    with pytest.raises(Refused, match="vq-wav2vec_kmeans.pt' has no codebooks that '.*bert.pt' could read"):
        upstream.find(name)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"encoder_attention_heads": 5}, "has 5 attention heads, among which its width of 12 cannot be divided."),
        ({"activation_fn": "tanh"}, "has activation_fn 'tanh'; what can be read is gelu, relu, gelu_fast, gelu_accurate."),
    ],
)
def test_what_cannot_be_read_is_said(changed: dict[str, Any], said: str) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in discretebert.weights().items()}
    with pytest.raises(Refused) as caught:
        shape(Checkpoint(Path("made.pt"), tensors, {"args": {**discretebert.SETTINGS, **changed}}))
    assert said in str(caught.value)


def test_another_dictionary_is_another_revision(tmp_path: Path) -> None:
    name = discretebert.save(tmp_path, "fairseq")
    before = upstream.find(name).revision
    (tmp_path / "dict.txt").write_text(discretebert.DICTIONARY.replace("-", "-0"))
    assert upstream.find(name).revision != before


def test_the_published_one_is_here_when_both_networks_are(tmp_path: Path) -> None:
    discretebert.save(tmp_path, "s3prl")

    def card() -> upstream.Card:
        return next(card for card in checkpoint.published("s3prl") if card.name == "s3prl:discretebert")

    downloads = settings().downloads
    (downloads / "s3prl").mkdir(parents=True)
    (downloads / "author").mkdir()
    (tmp_path / "bert.pt").rename(downloads / "s3prl" / "discretebert.pt")
    assert not card().here
    (tmp_path / "vq-wav2vec_kmeans.pt").rename(downloads / "author" / "vq-wav2vec_kmeans.pt")
    assert card().here
    assert upstream.load("s3prl:discretebert").encode([golden.sound(5_000)]).clip(0)[2].shape == (29, discretebert.DIM)


def test_fetching_it_brings_both_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = []
    monkeypatch.setattr("engine.download.fetch", lambda address, file, progress: fetched.append((address, file.name)))
    card = upstream.find("s3prl:discretebert")
    assert card.fetch is not None
    card.fetch(card, lambda done, total: None)
    assert fetched == [
        ("https://dl.fbaipublicfiles.com/fairseq/wav2vec/vq-wav2vec_kmeans.pt", "vq-wav2vec_kmeans.pt"),
        ("https://huggingface.co/s3prl/converted_ckpts/resolve/main/vq_wav2vec_kmeans_roberta.pt", "discretebert.pt"),
    ]
