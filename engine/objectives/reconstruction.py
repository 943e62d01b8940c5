"""What it costs to guess features that were altered: the objective that Mockingjay, TERA and their kin share."""

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.nets.masking import alter, spans
from engine.nets.spectral_encoder import SpectralEncoder
from engine.pretext import Batch, Objective
from engine.training.plan import Loss


class Reconstruction(Objective):
    """Mean absolute error of what is guessed where features were altered. Subclasses say what is hidden, and how."""

    def __init__(self, network: SpectralEncoder, head: nn.Module | None = None) -> None:
        super().__init__()
        self.network = network
        self.head = head or spectrum_head(network)

    @abstractmethod
    def hidden(self, frames: int, generator: torch.Generator) -> Tensor:
        """(frames,) true where a whole frame of a clip is hidden."""

    @abstractmethod
    def altered(self, clip: Tensor, hidden: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What the network is given of a clip, and where it is compared with it: (frames, channels), or (frames, 1)."""

    def prepare(self, wave: Tensor) -> tuple[Tensor, ...]:
        return (self.network.local([wave])[0],)

    def hides(self, batch: Batch) -> list[Tensor]:
        return [self.hidden(len(clip), draw) for clip, draw in zip(batch.part(), batch.generators(), strict=True)]

    def forward(self, batch: Batch) -> Loss:
        clips = batch.part()
        pairs = [
            self.altered(clip, hidden.to(clip.device), draw)
            for clip, hidden, draw in zip(clips, self.hides(batch), batch.generators(1), strict=True)
        ]
        counts = torch.cat([counts for _, counts in pairs])
        guessed = counts.any(dim=1)
        x = self.network.projected(torch.cat([seen for seen, _ in pairs]))
        guess = self.head(self.network.last(x, [len(clip) for clip in clips], guessed))
        errors = functional.l1_loss(guess, torch.cat(clips)[guessed], reduction="none")
        errors = errors[counts[guessed].expand_as(errors)]
        # Bands may be of no width: then nothing is to be guessed, which costs nothing.
        return Loss(errors.sum(), float(max(1, errors.numel())))


class InRuns(Reconstruction):
    """Whole frames are hidden, in runs of one length."""

    def __init__(self, network: SpectralEncoder, share: float, span: int, *, in_a_row: bool = False) -> None:
        super().__init__(network)
        self.share, self.span, self.in_a_row = share, span, in_a_row

    def hidden(self, frames: int, generator: torch.Generator) -> Tensor:
        return spans(frames, self.share, self.span, generator)

    def altered(self, clip: Tensor, hidden: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return alter(clip, hidden, generator, in_a_row=self.in_a_row), hidden[:, None]


def spectrum_head(network: SpectralEncoder) -> nn.Sequential:
    """What turns a state back into features, as in Mockingjay."""
    width = network.width
    return nn.Sequential(
        nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, eps=1e-12), nn.Linear(width, network.channels)
    )
