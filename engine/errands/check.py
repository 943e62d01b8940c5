"""Opens an upstream, and says how its weights went into the network."""

from typing import ClassVar

from pydantic import Field

from engine import upstream
from engine.run import Context, Result, RunSpec, Value


class Check(RunSpec):
    """Opens an upstream strictly and reports what its file held: every weight that the network has, and what was left out.

    A checkpoint with a weight too many, one too few, or one of another shape is refused with their names.
    """

    family: ClassVar[str] = "errand"

    upstream: str = Field(description="The upstream that is opened.", json_schema_extra={"choices": "upstreams"})

    def needs(self) -> list[str]:
        return upstream.missing(self.upstream)

    def run(self, ctx: Context) -> Result:
        ctx.progress(0, 1, "opening")
        card = upstream.find(self.upstream)
        opened = card.open(card)  # not the one that may be in memory: the file is what is asked about
        fit = opened.loaded
        unused = fit.unused if fit else ()
        parameters = sum(parameter.numel() for parameter in opened.parameters())
        ctx.progress(1, 1, "opening")
        facts = {
            "upstream": card.name,
            "family": card.family,
            "source": fit.source if fit else card.source,
            "revision": card.revision,
            "tensors": fit.tensors if fit else len(opened.state_dict()),
            "parameters": fit.parameters if fit else parameters,
            "unused": list(unused),
            "layers": card.layers,
            "dims": list(card.dims),
            "hop": card.hop,
            "sample_rate": card.sample_rate,
            "taps": [tap.name for tap in card.taps],
        }
        said: list[dict[str, Value]] = [
            {"what": name, "value": value}
            for name, value in facts.items()
            if isinstance(value, str | int) and name != "upstream"
        ]
        said += [{"what": "unused", "value": name} for name in unused]
        return Result(said, facts=facts)
