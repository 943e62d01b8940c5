"""Codebooks that are learnt: how an entry is chosen so that a gradient passes, and how evenly the entries are used.

Two ways there are. Scores of a linear layer choose through the Gumbel softmax (Jang, Gu, Poole 2017; Maddison, Mnih, Teh
2017), as in vq-wav2vec, wav2vec 2.0, VQ-APC and NPC; or the nearest entry is taken, and the entries follow what chose them
(van den Oord, Vinyals, Kavukcuoglu 2017), as in VQ-VAE and DinoSR.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from engine.clusters import assign

COLLAPSED = 1.2  # perplexity below which a codebook tells frames apart no more
NUDGE = 0.01  # how far the two halves of an entry that is split lie apart, of its length
LEAST = 1e-9  # average count of an entry below which nothing is known of it


@dataclass(frozen=True)
class Choice:
    """Which entry of each book every frame takes."""

    weights: Tensor  # (frames, books, entries): one is 1, the others 0; the gradient is that of a softmax
    codes: Tensor  # (frames, books), whole numbers
    likely: Tensor  # (books, entries): how likely each was by the scores alone, on average


@dataclass(frozen=True)
class Quantized:
    """Frames in the words of some codebooks."""

    vectors: Tensor  # (frames, width): the entries, side by side; a gradient passes
    codes: Tensor  # (frames, books), whole numbers
    used: Tensor  # (books, entries): how often each was taken, as a share
    likely: Tensor  # (books, entries): how likely each was on average; where nothing is drawn, the same as `used`

    @property
    def perplexity(self) -> Tensor:
        """As how many entries, all used alike, a book is used: the mean over books."""
        return perplexity(self.used).mean()


def choose(scores: Tensor, temperature: float, *, draw: bool) -> Choice:
    """One entry of each book by its scores (frames, books, entries), with Gumbel noise of torch's generator where drawn.

    The highest is taken; the gradient is that of the softmax of scores and noise over the temperature, as if that had been
    taken instead (straight through).
    """
    scores = scores.float()
    noisy = (scores - torch.empty_like(scores).exponential_().log() if draw else scores) / temperature
    soft = noisy.softmax(dim=2)
    codes = noisy.argmax(dim=2)
    hard = functional.one_hot(codes, scores.shape[2]).to(soft.dtype)
    return Choice(hard + (soft - soft.detach()), codes, scores.softmax(dim=2).mean(dim=0))


def shares(codes: Tensor, entries: int) -> Tensor:
    """How often each entry is among codes (frames, books), as a share: (books, entries)."""
    return torch.stack([torch.bincount(book, minlength=entries) for book in codes.T]) / len(codes)


def perplexity(shares: Tensor) -> Tensor:
    """(books,) exp of the entropy of shares (books, entries): 1 where one entry has all, else up to their number."""
    entropy = -(shares * shares.clamp_min(1e-9).log()).sum(dim=1)  # the bound keeps the gradient finite where a share is 0
    return entropy.exp()


def diversity(likely: Tensor) -> Tensor:
    """The diversity loss of wav2vec 2.0: by perplexity, the share of all entries that is not used. 0 is best."""
    return 1 - perplexity(likely).sum() / likely.numel()


def collapse(perplexity: float, entries: int) -> str:
    """A sentence where a codebook of so many entries says next to nothing; else empty."""
    if perplexity >= COLLAPSED:
        return ""
    return (
        f"the codebook has collapsed: nearly all frames take the same of its {entries} entries (perplexity "
        f"{perplexity:.2f}), so that next to nothing passes it. A lower learning rate may help."
    )


def annealed(step: int, start: float, end: float, factor: float) -> float:
    """A temperature that is multiplied by a factor at each step until it has come down to its end."""
    return max(end, start * factor**step)


class GumbelCodes(nn.Module):
    """The product quantizer of wav2vec 2.0 (Baevski et al. 2020, arXiv:2006.11477): one linear layer scores all entries.

    (frames, inputs) -> vectors (frames, width), of which each book gives an equal part. While learning, the choice is drawn.
    """

    def __init__(self, inputs: int, books: int, entries: int, width: int) -> None:
        super().__init__()
        self.books, self.entries = books, entries
        self.scores = nn.Linear(inputs, books * entries)
        nn.init.normal_(self.scores.weight)  # large, so that from the start different frames like different entries
        nn.init.zeros_(self.scores.bias)
        self.vectors = nn.Parameter(torch.rand(books, entries, width // books))

    def forward(self, x: Tensor, temperature: float = 1.0) -> Quantized:
        with torch.autocast(x.device.type, enabled=False):
            scores = self.scores(x.float()).view(len(x), self.books, self.entries)
            choice = choose(scores, temperature, draw=self.training)
            vectors = torch.einsum("nbe,bew->nbw", choice.weights, self.vectors).flatten(1)
        return Quantized(vectors, choice.codes, shares(choice.codes, self.entries), choice.likely)


class EmaCodes(nn.Module):
    """The nearest entry of each book; entries are moving means of what chose them (van den Oord et al. 2017, 1711.00937).

    (frames, books * width) -> the same. The gradient passes as if nothing had been replaced. While learning, each call
    remembers its frames until `follow` moves the entries, which belongs into `Objective.stepped`. An entry that is chosen
    less than `least` times as often as the average takes over half of the one chosen most (Linde, Buzo, Gray 1980).
    """

    def __init__(self, books: int, entries: int, width: int, *, decay: float = 0.99, least: float = 0.0) -> None:
        super().__init__()
        self.decay, self.least = decay, least
        self.register_buffer("vectors", torch.randn(books, entries, width))
        self.register_buffer("counts", torch.zeros(books, entries))
        self.register_buffer("sums", torch.zeros(books, entries, width))
        self.vectors: Tensor
        self.counts: Tensor
        self.sums: Tensor
        # Since the last step, as a batch may come in parts. No buffers: between steps there is nothing to keep.
        self._counted: list[Tensor] = []
        self._summed: list[Tensor] = []

    def codes(self, x: Tensor) -> Tensor:
        """(frames, books) whole numbers."""
        parts = self._parts(x)
        return torch.stack([assign(parts[:, book], vectors) for book, vectors in enumerate(self.vectors)], dim=1)

    def chosen(self, codes: Tensor) -> Tensor:
        """The entries of these codes, side by side: (frames, books * width)."""
        return torch.cat([vectors[codes[:, book]] for book, vectors in enumerate(self.vectors)], dim=1)

    def forward(self, x: Tensor) -> Quantized:
        codes = self.codes(x)
        share = shares(codes, self.vectors.shape[1])
        if self.training:
            self.remember(x, codes)
        return Quantized(self.chosen(codes) + (x - x.detach()), codes, share, share)

    def remember(self, x: Tensor, codes: Tensor) -> None:
        """Let the entries of these codes follow these frames at the next step."""
        parts = self._parts(x)
        of_books = enumerate(self.sums)
        self._counted.append(shares(codes, self.vectors.shape[1]) * len(x))
        self._summed.append(
            torch.stack([torch.zeros_like(sums).index_add_(0, codes[:, book], parts[:, book]) for book, sums in of_books])
        )

    @torch.no_grad()
    def follow(self) -> None:
        """Move the entries towards the frames of this step."""
        counted = torch.stack([torch.zeros_like(self.counts), *self._counted]).sum(dim=0)
        summed = torch.stack([torch.zeros_like(self.sums), *self._summed]).sum(dim=0)
        self._counted, self._summed = [], []
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(counted)
            distributed.all_reduce(summed)
        self.counts.mul_(self.decay).add_(counted, alpha=1 - self.decay)
        self.sums.mul_(self.decay).add_(summed, alpha=1 - self.decay)
        for counts, sums in zip(self.counts, self.sums, strict=True):
            self._split(counts, sums)
        known = self.counts > LEAST  # of what has been idle for long, only rounding is left
        self.vectors[known] = self.sums[known] / self.counts[known][:, None]

    def _split(self, counts: Tensor, sums: Tensor) -> None:
        """Idle entries take half of those that are used most, each a hair off, so that the two part."""
        idle = (counts < self.least * counts.mean()).nonzero()[:, 0]
        many = counts.topk(min(len(idle), len(counts) - len(idle))).indices
        idle = idle[: len(many)]
        counts[many] /= 2
        counts[idle] = counts[many]
        sums[idle] = sums[many] * ((1 - NUDGE) / 2)
        sums[many] *= (1 + NUDGE) / 2

    def _parts(self, x: Tensor) -> Tensor:
        return x.detach().float().view(len(x), self.vectors.shape[0], self.vectors.shape[2])
