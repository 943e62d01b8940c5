"""What stands beside a measure: a sentence for every floor that no layer is better than."""

from engine.run import Value
from probing import compared


def line(name: str, layer: int, value: float) -> dict[str, Value]:
    ends = {"value_low": value - 0.1, "value_high": value + 0.1}
    return {"upstream": name, "layer": layer, "measure": "score", "value": value, **ends}


def test_a_baseline_that_does_better_is_said_with_what_the_upstream_learnt_from() -> None:
    name, others = "hubert-small", ["fbank", "mel", "hubert-small"]
    table = [line(name, 0, 0.4), line(name, 2, 0.5), line("fbank", 0, 0.6)]
    (said,) = compared.no_better(table, "score", name, others)
    assert "No layer of hubert-small does better than fbank" in said
    assert "0.500 (95 % between 0.400 and 0.600) at layer 2 against 0.600" in said and "trained on" in said
    assert compared.no_better(table[:2], "score", name, others) == []
    assert compared.no_better([line(name, 1, 0.7), *table], "score", name, others) == []


def test_where_less_is_better_the_lowest_layer_is_the_best() -> None:
    name = "hubert-small"
    table = [line(name, 0, 0.4), line(name, 2, 0.5), line("fbank", 0, 0.3)]
    (said,) = compared.no_better(table, "score", name, ["fbank"], lower=True)
    assert "score 0.400" in said and "at layer 0 against 0.300" in said
    assert compared.no_better([line(name, 1, 0.2), *table], "score", name, ["fbank"], lower=True) == []
