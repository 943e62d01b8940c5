"""Networks in two parts, which is what most pretexts need: frames by themselves, then what they become in context."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Self

from torch import Tensor, nn

from engine.upstream import Upstream


class Contextual(Upstream):
    """Local frames from sound, projected to the width of the blocks; hidden there, they are guessed from their context.

    Where frames of several clips are one tensor they stand one after another, without padding: (sum of frames, dim).
    """

    channels: int  # of a local frame
    width: int  # of a projected frame, and of every state

    @abstractmethod
    def local(self, wavs: list[Tensor]) -> list[Tensor]:
        """What each frame is before it knows of others: (frames, channels) of each clip."""

    @abstractmethod
    def projected(self, local: Tensor) -> Tensor:
        """Local frames at the width of the blocks: (frames, channels) -> (frames, width). Frames are hidden after it."""

    @abstractmethod
    def contextual(self, x: Tensor, lengths: list[int]) -> list[Tensor]:
        """All states (frames, width) of projected frames of clips of these lengths: the input of the first block, ..."""

    @property
    @abstractmethod
    def feeds(self) -> Sequence[nn.Module]:
        """The last layer of the feed-forward net of each block: what it gives is added to the block's input."""

    @abstractmethod
    def without_front(self) -> Self:
        """A copy without what learns from the waveform itself, for a teacher: only `contextual` is sure to be there."""
