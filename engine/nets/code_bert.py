"""BERT over the codes of vq-wav2vec (Baevski, Auli, Mohamed 2019, arXiv:1911.03912), known as DiscreteBERT.

The codes of a whole clip are found first. They then go through BERT, each window between a token that begins a sentence
and one that ends it, as in training; the frames of these two are left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from engine.nets.transformer import Block
from engine.nets.wav2vec import Encoder, quantizer, tapped
from engine.nets.wav2vec import Shape as Coder
from engine.nets.windows import stitched
from engine.upstream import Card, Hidden, Upstream

BEGIN, PAD, END, UNKNOWN = range(4)  # how every dictionary of fairseq starts
EPSILON = 1e-5


@dataclass(frozen=True)
class Shape:
    """BERT itself."""

    words: int
    places: int  # rows of the table of positions; the first two are never used
    dim: int
    layers: int
    heads: int
    inner: int
    activation: str = "gelu"
    norm_first: bool = False
    norm: bool = True  # of the embeddings
    scale: float = 1.0  # what the embedding of a word is multiplied with

    @property
    def window(self) -> int:
        """Frames that are heard at once."""
        return (self.places - PAD - 1 - 2) // 2 * 2

    @property
    def overlap(self) -> int:
        """Frames that two windows share."""
        return self.window // 8 * 2


class CodeBERT(Upstream):
    """The pipeline. State 0 goes into the first block of BERT, state i comes out of block i, before any final norm."""

    def __init__(self, card: Card, coder: Coder, shape: Shape, words: Mapping[tuple[int, ...], int]) -> None:
        super().__init__()
        self.card = card
        self.coder = coder
        self.shape = shape
        self.encoder = Encoder(coder)
        self.quantizer = quantizer(coder)
        self.words = nn.Embedding(shape.words, shape.dim)
        self.places = nn.Embedding(shape.places, shape.dim)
        self.norm = nn.LayerNorm(shape.dim, EPSILON) if shape.norm else nn.Identity()
        self.blocks = nn.ModuleList(
            Block(
                shape.dim,
                shape.heads,
                shape.inner,
                0.0,
                norm_first=shape.norm_first,
                activation=shape.activation,
                epsilon=EPSILON,
            )
            for _ in range(shape.layers)
        )
        dictionary = torch.full((coder.entries,) * coder.codebooks, UNKNOWN)
        for codes, word in words.items():
            dictionary[codes] = word
        self.register_buffer("dictionary", dictionary, persistent=False)
        self.dictionary: Tensor
        for module in (self.words, self.places, *self.blocks.modules()):
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def frames(self, samples: int) -> int:
        return self.coder.frames(samples)

    @torch.no_grad()
    def forward(self, wavs: list[Tensor], attention: bool) -> Hidden:
        lengths = torch.tensor([self.frames(wav.numel()) for wav in wavs], device=self.device)
        clips = [self._states(wav.to(self.device)) for wav in wavs]
        # Each layer is let go as soon as it is padded: a long clip is not held twice.
        layers = range(self.shape.layers + 1)
        padded = [pad_sequence([states.pop(0) for states in clips], batch_first=True) for _ in layers]
        return Hidden([state.float() for state in padded], lengths)

    def tapped(self, wavs: list[Tensor], names: Sequence[str]) -> dict[str, list[Tensor]]:
        clips = [wav.to(self.device) for wav in wavs]
        with torch.no_grad():
            return {name: [tapped(self.encoder, self.quantizer, clip, name) for clip in clips] for name in names}

    def _states(self, wav: Tensor) -> list[Tensor]:
        words = self.dictionary[tapped(self.encoder, self.quantizer, wav, "codes").unbind(1)]
        return stitched(words, self.shape.window, self.shape.overlap, 1, self._read)

    def _read(self, words: Tensor) -> list[Tensor]:
        """The states of one window: (frames,) -> (frames, dim) each."""
        sentence = torch.cat([words.new_tensor([BEGIN]), words, words.new_tensor([END])])
        place = torch.arange(PAD + 1, PAD + 1 + len(sentence), device=words.device)
        x = self.norm(self.words(sentence) * self.shape.scale + self.places(place))[None]
        states = [x]
        for block in self.blocks:
            x, _ = block(x, None, False)
            states.append(x)
        return [state[0, 1:-1] for state in states]
