"""A small benchmark that shows the whole way: two upstreams, a probe and a task for each, one table."""

from typing import Any

from pydantic import Field

from engine import upstream
from engine.run import Figure, Result, Value
from engine.suite import Suite


class Smoke(Suite):
    """Probes the phones of each upstream and trains a keyword spotter on it, each as a job of its own."""

    upstreams: tuple[str, ...] = Field(
        ("fbank", "hubert-small"),
        min_length=1,
        description="The speech models that are compared.",
        json_schema_extra={"choices": "upstreams"},
    )
    steps: int = Field(300, ge=1, le=1_000_000, description="Steps of each keyword spotter.")

    def needs(self) -> list[str]:
        return upstream.missing(*self.upstreams)

    def expand(self) -> list[dict[str, Any]]:
        documents: list[dict[str, Any]] = []
        for name in self.upstreams:
            documents.append(
                {"run": "linear_probe", "upstreams": [name], "corpus": "spoken:digits", "unit": "phone", "label": "phone",
                 "baselines": [], "twin": False, "repeats": 1, "control": False, "seed": self.seed}
            )  # fmt: skip
            documents.append(
                {"run": "keyword_spotting", "upstream": name, "corpus": "spoken:commands", "label": "command",
                 "steps": self.steps, "rate": 3e-3, "validate_every": min(100, self.steps),
                 "checkpoint_every": min(500, self.steps), "seed": self.seed}
            )  # fmt: skip
        return documents

    def table(self, documents: list[dict[str, Any]], results: list[Result]) -> list[dict[str, Value]]:
        lines: list[dict[str, Value]] = []
        for document, result in zip(documents, results, strict=True):
            if document["run"] == "linear_probe":
                name = document["upstreams"][0]
                curve = [line for line in result.table if line["upstream"] == name and line["measure"] == "accuracy"]
                best = max(curve, key=lambda line: float(line["value"] or 0))
                lines.append(
                    {"upstream": name, "measure": "phones by a linear probe", "value": best["value"], "layer": best["layer"]}
                )
            else:
                value = result.facts["test_accuracy"]
                lines.append({"upstream": document["upstream"], "measure": "keyword spotting", "value": value})
        return lines

    def figures(self) -> list[Figure]:
        return [Figure("bar", "Accuracy on speakers never heard", x="measure", y="value", by="upstream", y_title="accuracy")]
