"""What a suite is: many runs as one, each a job of its own, and one table when all are done."""

from abc import abstractmethod
from typing import Any, ClassVar

from engine.run import Context, Figure, Result, RunSpec, Value


class Suite(RunSpec):
    """Starts other runs and gathers what they found. It takes no slot of the queue: it only waits."""

    family: ClassVar[str] = "suite"
    slots: ClassVar[int] = 0

    @abstractmethod
    def expand(self) -> list[dict[str, Any]]:
        """The documents of the runs, in the order in which `table` gets their results."""

    @abstractmethod
    def table(self, documents: list[dict[str, Any]], results: list[Result]) -> list[dict[str, Value]]:
        """One table from a finished grid."""

    def figures(self) -> list[Figure]:
        """How to draw the table."""
        return []

    def run(self, ctx: Context) -> Result:
        """Run every child and gather."""
        documents = self.expand()
        results = ctx.children(documents)
        return Result(self.table(documents, results), self.figures(), {"runs": documents})
