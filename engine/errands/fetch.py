"""Brings an upstream into the workspace."""

import time
from typing import ClassVar

from pydantic import Field

from engine import download, upstream
from engine.errors import AuscultError
from engine.run import Context, Result, RunSpec, Value


class Fetch(RunSpec):
    """Brings the weights of an upstream into the workspace, from wherever they are published.

    What is here already is not fetched again; a download that broke off or was cancelled goes on at its byte.
    """

    family: ClassVar[str] = "errand"
    slots: ClassVar[int] = 0  # it computes nothing, so it never waits for what does

    upstream: str = Field(description="The upstream that is fetched.", json_schema_extra={"choices": "upstreams"})

    def needs(self) -> list[str]:
        if reasons := upstream.missing(self.upstream):
            return reasons
        return [] if upstream.find(self.upstream).fetch else [f"{self.upstream} is not fetched from anywhere."]

    def run(self, ctx: Context) -> Result:
        card = upstream.find(self.upstream)
        assert card.fetch is not None
        began = time.monotonic()
        card.fetch(card, lambda done, total: ctx.progress(done, total, "bytes"))
        seconds = time.monotonic() - began
        table: list[dict[str, Value]] = []
        for file in card.files(card) if card.files else []:
            if file.is_file():
                ctx.progress(len(table), len(table) + 1, "checking")
                table.append({"file": file.name, "bytes": file.stat().st_size, "sha256": download.digest(file)})
        return Result(
            table,
            facts={
                "upstream": card.name,
                "source": card.source,
                "license": card.license,
                "revision": _revision(card.name),
                "bytes": sum(int(str(line["bytes"])) for line in table),
                "fetch_seconds": round(seconds, 3),
            },
        )


def _revision(name: str) -> str:
    """What was fetched, as its card says now that it is here."""
    try:
        return upstream.find(name).revision
    except AuscultError:
        return ""  # what was fetched cannot be opened; opening it says why
