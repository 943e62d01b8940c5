"""NPC: a frame is told from those around it, at a glance (Liu, Chung, Glass, Interspeech 2021)."""

from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from engine.nets import npc, quantizer
from engine.nets.learnt_codes import collapse
from engine.nets.spectra import Framing
from engine.pretext import Batch, Before, Objective, Pretext
from engine.training.optimizers import Optimizer, Schedule
from engine.training.plan import Loss, Training
from engine.upstream import Upstream

MELS = 80
FRAMING = Framing(shape="hamming")


class NPC(Pretext):
    """Lets convolutions tell each frame from the frames around it, while its own place and the next to it are hidden.

    Convolutions whose windows leave out their middle never see the frame that they tell, so nothing has to be masked and
    all frames are learnt from at once. What they know passes a codebook of 4 groups with 64 entries each, which keeps the
    essential. The loss is the mean absolute error. Batch norms take their statistics over the frames of the clips in a
    batch. State 0 is the feature; then follow each block and its masked convolution, and last the sum of these.
    """

    paper: ClassVar[str] = "Liu et al. 2020, arXiv:2011.00406"

    steps: int = Training.again("steps", 880_000)  # a hundred times LibriSpeech in batches of 32 utterances
    rate: float = Training.again("rate", 1e-3)
    optimizer: Optimizer = Training.again("optimizer", "Adam")
    schedule: Schedule = Training.again("schedule", "steady")
    warm_up: float = Training.again("warm_up", 0.0)
    decay: float = Training.again("decay", 0.0)
    batch_seconds: float = Pretext.again("batch_seconds", 400.0)
    blocks: int = Field(4, ge=1, le=24, description="Blocks of convolutions over three frames.")
    width: int = Field(512, ge=8, le=4096, description="Size of a layer; a multiple of the groups.")
    kernel: int = Field(15, ge=3, le=201, description="Frames that a masked convolution spans; an odd number.")
    mask: int = Field(5, ge=1, le=101, description="Frames around the one that is told that are not seen; an odd number.")
    groups: int = Field(4, ge=0, le=64, description="Groups that are quantized; none at all with 0.")
    codebook: int = Field(64, ge=2, le=65_536, description="Entries for each group.")
    temperature: float = Field(
        1.0,
        gt=0,
        le=10,
        description="How softly entries are chosen where gradients are concerned.",
        json_schema_extra={"advanced": True},
    )
    dropout: float = Field(
        0.1, ge=0, lt=1, description="Share of values dropped while learning.", json_schema_extra={"advanced": True}
    )

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.groups and self.width % self.groups:
            raise ValueError(f"the width {self.width} is not a multiple of the {self.groups} groups")
        if not self.kernel % 2 or not self.mask % 2:
            raise ValueError(
                f"kernel and mask have a middle, so they are odd numbers; these are {self.kernel} and {self.mask}"
            )
        if self.kernel <= self.mask + 2 * self.blocks:
            raise ValueError(
                f"each block sees a frame further, so that after {self.blocks} blocks a mask of {self.mask} frames hides "
                f"all {self.kernel} of the kernel; it takes at least {self.mask + 2 * self.blocks + 2}"
            )
        return self

    @classmethod
    def title(cls) -> str:
        return "NPC"

    def network(self) -> npc.NPC:
        entries = (self.codebook,) * self.groups
        widths = (self.width // self.groups,) * self.groups if self.groups else ()
        shape = npc.Shape(
            MELS,
            self.width,
            self.blocks,
            self.kernel,
            self.mask,
            FRAMING,
            widths=widths,
            entries=entries,
            dropout=self.dropout,
        )
        taps = quantizer.taps(entries, FRAMING.hop)
        return npc.NPC(self.card(shape.dims, FRAMING.hop, FRAMING.shortest, taps=taps), shape)

    def objective(self, network: Upstream, before: Before) -> Objective:
        assert isinstance(network, npc.NPC)
        return Surroundings(network, self.temperature)


class Surroundings(Objective):
    """Mean absolute error of each frame, told from those around it."""

    def __init__(self, network: npc.NPC, temperature: float) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature
        self.words = quantizer.Entries(network.quantizer) if network.quantizer else None
        self.head = nn.Linear(network.shape.dim, network.shape.mels)

    def prepare(self, wave: Tensor) -> tuple[Tensor, ...]:
        return (self.network.local([wave])[0],)

    def forward(self, batch: Batch) -> Loss:
        clips = batch.part()
        guess, shown = self.guess(clips)
        return Loss.mean(functional.l1_loss(guess, torch.cat(clips), reduction="none"), **shown)

    def guess(self, clips: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Each frame of clips as it is told from those around it, and how the codebooks are used."""
        heard = self.network.states(clips)[-1]
        if self.words is None or self.network.quantizer is None:
            return self.head(heard), {}
        quantized = self.words(self.network.quantizer, heard, self.temperature)
        return self.head(quantized.vectors), {"perplexity": quantized.perplexity}

    def unwell(self, told: dict[str, float]) -> str:
        if self.network.quantizer is None:
            return ""
        return collapse(told["perplexity"], max(self.network.quantizer.entries))
