"""NPC: convolutions whose last one does not see the middle of its window (Liu, Chung, Glass 2020, arXiv:2011.00406)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from engine.errors import Refused
from engine.nets.clips import convolved
from engine.nets.quantizer import LinearQuantizer
from engine.nets.spectra import Framing, Kaldi, normalise
from engine.upstream import Card, Hidden, Upstream

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "tanh": torch.tanh}


@dataclass(frozen=True)
class Shape:
    """Everything that tells one network of this kind from another."""

    mels: int
    dim: int
    blocks: int
    kernel: int  # of the masked convolutions
    mask: int  # frames in the middle that the first masked convolution would not see, were there no block before it
    framing: Framing
    residual: bool = True
    batch_norm: bool = True
    activation: str = "relu"
    every_block: bool = True  # a masked convolution after each block, not only after the last
    bottleneck: int = 0  # width to which the sum is brought; 0 = it is left as it is
    normalised: bool = True  # features, over the clip
    widths: tuple[int, ...] = ()  # of the groups that are quantized at the end
    entries: tuple[int, ...] = ()  # of their codebooks
    dropout: float = 0.0  # of what each block adds, while learning

    def __post_init__(self) -> None:
        if min(self.mels, self.dim, self.blocks, self.kernel, self.mask, *self.widths, *self.entries) < 1:
            raise Refused("Every size of a network is at least 1.")
        if self.activation not in ACTIVATIONS:
            raise Refused(f"The activation '{self.activation}' is not known. There is: {', '.join(ACTIVATIONS)}.")
        if not self.kernel % 2 or not self.mask % 2 or self.kernel <= self.mask + 2 * self.blocks:
            raise Refused(f"After {self.blocks} blocks a mask of {self.mask} frames leaves nothing of {self.kernel}.")
        if self.widths and sum(self.widths) != self.dim or len(self.widths) != len(self.entries):
            raise Refused(f"Groups of {self.widths} with {self.entries} entries cannot quantize a layer of {self.dim}.")

    @property
    def dims(self) -> tuple[int, ...]:
        """Of each state."""
        masked = self.blocks if self.every_block else 1
        return (self.mels, *(self.dim,) * (self.blocks + masked), self.bottleneck or self.dim)


class NPC(Upstream):
    """The network. State 0 is the feature; then follow each block and its masked convolution, and last the sum of these."""

    def __init__(self, card: Card, shape: Shape) -> None:
        super().__init__()
        self.card = card
        self.shape = shape
        self.features = Kaldi(shape.mels, framing=shape.framing)
        self.quantizer = LinearQuantizer(shape.widths, shape.entries) if shape.widths else None
        self.blocks = nn.ModuleList(_Block(shape, number) for number in range(shape.blocks))
        last = shape.blocks - 1
        self.masked = nn.ModuleDict(
            {str(number): _Masked(shape, number) for number in range(shape.blocks) if shape.every_block or number == last}
        )
        self.bottleneck = nn.Linear(shape.dim, shape.bottleneck, bias=False) if shape.bottleneck else None

    def frames(self, samples: int) -> int:
        return self.shape.framing.frames(samples)

    def forward(self, wavs: list[Tensor], attention: bool) -> Hidden:
        clips = [self.states([clip]) for clip in self.local(wavs)]
        lengths = torch.tensor([len(clip[0]) for clip in clips], device=self.device)
        padded = []
        for _ in self.card.dims:  # what is put together is let go, so that a long clip is held once
            padded.append(pad_sequence([clip.pop(0) for clip in clips], batch_first=True).float())
        return Hidden(padded, lengths)

    def tapped(self, wavs: list[Tensor], names: Sequence[str]) -> dict[str, list[Tensor]]:
        assert self.quantizer is not None
        with torch.autocast(self.device.type, enabled=False):
            return {"codes": [self.quantizer(self.states([clip])[-1]) for clip in self.local(wavs)]}

    def local(self, wavs: list[Tensor]) -> list[Tensor]:
        """The features of each clip: (frames, mels)."""
        clips = []
        for wav in wavs:
            feature = self.features(wav.to(self.device))
            clips.append(normalise(feature) if self.shape.normalised else feature)
        return clips

    def states(self, clips: list[Tensor]) -> list[Tensor]:
        """Every state of clips of features, whose frames stand one after another: (sum of frames, dim)."""
        lengths = [len(clip) for clip in clips]
        states = [torch.cat(clips)]
        x, total = states[0], torch.zeros((), device=states[0].device)
        for number, block in enumerate(self.blocks):
            x = block(x, lengths)
            states.append(x)
            if str(number) in self.masked:
                states.append(self.masked[str(number)](x, lengths))
                total = total + states[-1]
        states.append(total if self.bottleneck is None else self.bottleneck(total))
        return states


class _Block(nn.Module):
    """A convolution over three frames and one over a single frame: (sum of frames, channels) -> (sum of frames, dim)."""

    def __init__(self, shape: Shape, number: int) -> None:
        super().__init__()
        self.residual = shape.residual and number > 0
        self.activate = ACTIVATIONS[shape.activation]
        self.conv = nn.Conv1d(shape.dim if number else shape.mels, shape.dim, 3, padding=1)
        self.linear = nn.Conv1d(shape.dim, shape.dim, 1)
        self.first_norm = nn.BatchNorm1d(shape.dim) if shape.batch_norm else nn.Identity()
        self.second_norm = nn.BatchNorm1d(shape.dim) if shape.batch_norm else nn.Identity()
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor, lengths: list[int]) -> Tensor:
        # The norms are over frames of clips alone, never over padding.
        inner = self.activate(self.first_norm(convolved(self.conv, x, lengths).float()))
        y: Tensor = self.dropout(self.second_norm(convolved(self.linear, inner, [len(inner)]).float()))
        return self.activate(y + x if self.residual else y)


class _Masked(nn.Conv1d):
    """A convolution that does not see the frames in the middle of its window: (sum of frames, dim) -> the same."""

    def __init__(self, shape: Shape, number: int) -> None:
        super().__init__(shape.dim, shape.dim, shape.kernel, padding=shape.kernel // 2)
        width = shape.mask + 2 * (number + 1)  # each block has brought one frame more to either side
        seen = torch.ones_like(self.weight, requires_grad=False)
        first = (shape.kernel - width) // 2
        seen[:, :, first : first + width] = 0
        self.register_buffer("seen", seen)
        self.seen: Tensor

    def forward(self, x: Tensor, lengths: list[int]) -> Tensor:  # type: ignore[override]
        weight = self.weight * self.seen
        padding = self.kernel_size[0] // 2
        return convolved(lambda y: functional.conv1d(y, weight, self.bias, padding=padding), x, lengths).float().tanh()
