"""What APC and its kin share: recurrent layers that hear only the past tell the frame that comes some frames later."""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from engine.nets import quantizer
from engine.nets.apc import APC, Shape
from engine.nets.learnt_codes import collapse
from engine.nets.spectra import Framing
from engine.pretext import Batch, Before, Objective, Pretext
from engine.training.optimizers import Optimizer, Schedule
from engine.training.plan import Loss, Training
from engine.upstream import Upstream

MELS = 80
FRAMING = Framing(shape="hamming")


class Recurrent(Pretext):
    """A pretext whose network is a stack of recurrent layers over log mel energies."""

    steps: int = Training.again("steps", 880_000)  # a hundred times LibriSpeech in batches of 32 utterances
    optimizer: Optimizer = Training.again("optimizer", "Adam")
    schedule: Schedule = Training.again("schedule", "steady")
    warm_up: float = Training.again("warm_up", 0.0)
    decay: float = Training.again("decay", 0.0)
    batch_seconds: float = Pretext.again("batch_seconds", 400.0)
    layers: int = Field(3, ge=1, le=24, description="Recurrent layers; each but the first is added to its input.")
    width: int = Field(512, ge=8, le=4096, description="Size of a layer.")
    ahead: int = Field(5, ge=1, le=100, description="How many frames of 10 ms later the frame comes that has to be told.")
    dropout: float = Field(
        0.1, ge=0, lt=1, description="Share of values dropped while learning.", json_schema_extra={"advanced": True}
    )

    def entries(self) -> tuple[int, ...]:
        """Of the codebook after the last layer, where there is one."""
        return ()

    def network(self) -> APC:
        entries = self.entries()
        widths = (self.width,) * len(entries)
        shape = Shape(MELS, self.width, self.layers, FRAMING, widths=widths, entries=entries, dropout=self.dropout)
        taps = quantizer.taps(entries, FRAMING.hop)
        return APC(self.card(shape.dims, FRAMING.hop, FRAMING.shortest, taps=taps), shape)

    def objective(self, network: Upstream, before: Before) -> Objective:
        assert isinstance(network, APC)
        return Prediction(network, self.ahead)


class Prediction(Objective):
    """Mean absolute error of the frame that comes `ahead` frames later. Only frames of clips count, never padding."""

    def __init__(self, network: APC, ahead: int, temperature: float = 1.0) -> None:
        super().__init__()
        self.network = network
        self.ahead, self.temperature = ahead, temperature
        self.words = quantizer.Entries(network.quantizer) if network.quantizer else None
        self.head = nn.Linear(network.shape.dim, network.shape.mels)

    def prepare(self, wave: Tensor) -> tuple[Tensor, ...]:
        return (self.network.local([wave])[0],)

    def forward(self, batch: Batch) -> Loss:
        clips = batch.part()
        return self.of_future(clips, self.last(clips))

    def last(self, clips: list[Tensor]) -> Sequence[Tensor]:
        """The last states of each clip."""
        return torch.split(self.network.states(clips)[-1], [len(clip) for clip in clips])

    def of_future(self, clips: list[Tensor], last: Sequence[Tensor]) -> Loss:
        """The loss of the last states of clips."""
        heard = torch.cat([state[: -self.ahead] for state in last])
        target = torch.cat([clip[self.ahead :] for clip in clips])
        shown = {}
        if self.words is not None and self.network.quantizer is not None:
            quantized = self.words(self.network.quantizer, heard, self.temperature)
            heard, shown["perplexity"] = quantized.vectors, quantized.perplexity
        error = functional.l1_loss(self.head(heard), target, reduction="sum")
        return Loss(error, max(1.0, float(target.numel())), shown)  # all clips may be shorter than what has to be told

    def unwell(self, told: dict[str, float]) -> str:
        if self.network.quantizer is None:
            return ""
        return collapse(told["perplexity"], max(self.network.quantizer.entries))
