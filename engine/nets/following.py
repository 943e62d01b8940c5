"""A teacher that is the network itself as it was on average of late: its weights follow those of the network.

Tarvainen and Valpola 2017, as data2vec (Baevski et al. 2022) and DinoSR (Liu et al. 2023) use it.
"""

from typing import Any, Self

import torch
from torch import Tensor, nn

from engine.nets.contextual import Contextual


class Follower(nn.Module):
    """The blocks of a network, whose weights learn nothing themselves: each step they become memory * own + rest * theirs.

    What tells positions on the waveform is a copy of the network's own (`copied`), as data2vec has it.
    """

    def __init__(self, network: Contextual, copied: tuple[str, ...] = ("positions.",)) -> None:
        super().__init__()
        self.network = network.without_front().requires_grad_(False).eval()
        self.copied = copied

    def train(self, mode: bool = True) -> Self:
        return super().train(False)  # a teacher drops nothing

    @torch.no_grad()
    def follow(self, network: Contextual, memory: float) -> None:
        """Move towards the weights that the network has now."""
        theirs = dict(network.named_parameters())
        for name, own in self.network.named_parameters():
            if name.startswith(self.copied):
                own.copy_(theirs[name])
            else:
                own.mul_(memory).add_(theirs[name], alpha=1 - memory)
        buffers = dict(network.named_buffers())
        for name, counted in self.network.named_buffers():
            counted.copy_(buffers[name])

    @torch.no_grad()
    def fed(self, x: Tensor, lengths: list[int]) -> list[Tensor]:
        """What the feed-forward net of each block gives, before it is added to the block's input: (sum of frames, width)."""
        seen: list[Tensor] = []

        def look(layer: nn.Module, given: tuple[Any, ...], out: Tensor) -> None:
            seen.append(out.float())

        hooks = [layer.register_forward_hook(look) for layer in self.network.feeds]
        try:
            self.network.contextual(x, lengths)
        finally:
            for hook in hooks:
                hook.remove()
        return seen


def memory_at(step: int, begin: float, end: float, steps: int) -> float:
    """How much of itself a teacher keeps at a step, counted from 0: in so many steps it goes from begin to end in a line."""
    return end if step >= steps else begin + (end - begin) * step / steps


def normalised(x: Tensor, lengths: list[int]) -> Tensor:
    """Every channel of each clip to zero mean and unit variance over its frames: (sum of frames, width) of clips."""
    clips = []
    for clip in torch.split(x, lengths):
        centred = clip - clip.mean(0)
        clips.append(centred * torch.rsqrt(centred.square().mean(0) + 1e-5))
    return torch.cat(clips)


def spread(x: Tensor, lengths: list[int]) -> Tensor:
    """How much frames of a clip differ: deviation of a channel over them, on average of channels, clips and frames.

    `lengths` are the frames of each clip. Weighing clips by their frames makes parts of a batch add up.
    """
    clips = [clip for clip in torch.split(x.detach(), lengths) if len(clip)]
    total = sum(len(clip) * (clip.var(0, unbiased=False) + 1e-6).sqrt().mean() for clip in clips)
    return torch.as_tensor(total) / max(1, len(x))
