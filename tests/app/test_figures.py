"""Figures draw tables; what is drawn is checked without a browser, and against Plotly's own schema."""

import base64
import json
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from app import figures
from engine.run import Figure, Result, Value

ROWS: list[dict[str, Value]] = [
    {"layer": layer, "value": 0.1 * layer, "value_low": 0.1 * layer - 0.05, "value_high": 0.1 * layer + 0.05, "of": "deep"}
    for layer in (2, 0, 1)
] + [{"layer": layer, "value": 0.15, "of": "fbank"} for layer in range(3)]
LINE = Figure("line", "Accuracy", x="layer", y="value", by="of")


def drawn(rows: list[dict[str, Value]], figure: Figure, theme: figures.Theme = "light") -> dict[str, Any]:
    """A drawn figure that is plain JSON and that Plotly knows."""
    made = figures.draw(Result(rows), figure, theme)
    go.Figure(json.loads(json.dumps(made, allow_nan=False)))
    return made


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_line_has_bands_and_a_flat_curve_is_a_baseline(theme: figures.Theme) -> None:
    band, deep, fbank = drawn(ROWS, LINE, theme)["data"]
    assert deep["x"] == [0, 1, 2] and deep["mode"] == "lines+markers"
    assert band["x"] == [0, 1, 2, 2, 1, 0] and band["y"][3] == pytest.approx(0.25)
    assert fbank["mode"] == "lines" and fbank["line"]["dash"] == "dash"
    assert deep["line"]["color"] != fbank["line"]["color"]


def test_only_rows_that_are_asked_for_are_drawn() -> None:
    figure = Figure("line", "Accuracy", x="layer", y="value", where={"of": "fbank"})
    (curve,) = drawn(ROWS, figure)["data"]
    assert curve["y"] == [0.15] * 3


def test_a_gap_stays_a_gap() -> None:
    rows: list[dict[str, Value]] = [{"layer": 0, "value": 1.0}, {"layer": 1, "value": None}, {"layer": 2, "value": 2.0}]
    (curve,) = drawn(rows, Figure("line", "", x="layer", y="value"))["data"]
    assert curve["y"] == [1.0, None, 2.0]


def test_bar_has_both_ends_of_its_error() -> None:
    (bar,) = drawn(ROWS[:3], Figure("bar", "", x="layer", y="value"))["data"]
    assert bar["error_y"]["array"] == pytest.approx([0.05] * 3) and bar["x"] == ["0", "1", "2"]


def test_scatter_is_coloured_by_number_or_by_name() -> None:
    by_number = drawn(ROWS, Figure("scatter", "", x="layer", y="value", by="layer"))["data"]
    assert len(by_number) == 1 and by_number[0]["marker"]["colorscale"][0][1] == figures.VIRIDIS[0]
    by_name = drawn(ROWS, Figure("scatter", "", x="layer", y="value", by="of"))["data"]
    assert [trace["name"] for trace in by_name] == ["deep", "fbank"]
    assert by_name[0]["marker"]["symbol"] != by_name[1]["marker"]["symbol"]


def test_heat_puts_each_value_in_its_cell() -> None:
    rows: list[dict[str, Value]] = [{"a": a, "b": b, "v": 10.0 * a + b} for a in (1, 0) for b in (2, 0, 1)]
    (heat,) = drawn(rows, Figure("heat", "", x="b", y="a", value="v"))["data"]
    assert heat["x"] == [0, 1, 2] and heat["y"] == [0, 1] and heat["z"] == [[0, 1, 2], [10, 11, 12]]


def test_differences_are_centred_on_zero() -> None:
    rows: list[dict[str, Value]] = [{"a": 0, "b": 0, "v": -0.7}, {"a": 0, "b": 1, "v": 0.2}]
    (heat,) = drawn(rows, Figure("heat", "", x="b", y="a", value="v", centred=True), "dark")["data"]
    assert (heat["zmin"], heat["zmax"]) == (-0.7, 0.7)
    assert heat["colorscale"][4] == [0.5, figures.DIFFERENCE["dark"][4]]


def test_big_heat_is_pooled_and_travels_as_bytes() -> None:
    rows: list[dict[str, Value]] = [{"a": a, "b": b, "v": float(a)} for a in range(300) for b in range(500)]
    made = drawn(rows, Figure("heat", "", x="b", y="a", value="v"))
    (heat,) = made["data"]
    assert heat["z"]["shape"] == "150, 250" and len(json.dumps(made)) < 70_000
    cells = np.frombuffer(base64.b64decode(heat["z"]["bdata"]), np.uint8).reshape(150, 250)
    assert cells[0, 0] == 0 and cells[-1, -1] == 255
    assert heat["colorbar"]["ticktext"][0] == "0.5" and heat["colorbar"]["ticktext"][-1] == "298"


def test_pooling_takes_means_and_leaves_missing_cells_out() -> None:
    cells = np.full((1, 801), 3.0)
    cells[0, 0] = np.nan
    cells[0, 3:6] = np.nan
    pooled, x, y = figures.pool(cells, list(range(801)), ["row"])
    assert pooled.shape == (1, 267) and pooled[0, 0] == 3.0 and np.isnan(pooled[0, 1]) and x[1] == 3 and y == ["row"]


@pytest.mark.parametrize("kind", ["line", "heat", "bar", "scatter"])
def test_nothing_to_draw_says_so(kind: Any) -> None:
    made = drawn([{"layer": 0, "value": None}], Figure(kind, "Accuracy", x="layer", y="value", value="value"))
    assert made["data"] == [] and "nothing to draw" in made["layout"]["annotations"][0]["text"]


def test_names_cannot_bring_markup() -> None:
    rows: list[dict[str, Value]] = [{"layer": 0, "value": 1.0, "of": '<a href="javascript:x">'}]
    text = json.dumps(drawn(rows, Figure("line", "<b>t", x="layer", y="value", by="of", x_title="<i>")))
    assert "<a" not in text and "<b>" not in text and "<i>" not in text


def test_zoom_outlives_a_redraw() -> None:
    assert drawn(ROWS, LINE)["layout"]["uirevision"] == drawn(ROWS[:3], LINE)["layout"]["uirevision"]


def test_failed_is_told_in_the_colour_of_failure() -> None:
    made = figures.failed("The file is gone. Choose another.", "dark")
    assert made["layout"]["annotations"][0]["font"]["color"] != figures.FAINT["dark"]


def test_a_curve_that_never_changes_keeps_its_size() -> None:
    rows: list[dict[str, Value]] = [{"step": step, "rate": 0.001} for step in range(9)]
    made = drawn(rows, Figure("line", "", "step", "rate"))
    low, high = made["layout"]["yaxis"]["range"]
    assert low < 0.001 < high < 0.002
    assert made["data"][0]["mode"] == "lines+markers"


@pytest.mark.parametrize(("layers", "tick"), [(1, 1), (4, 1), (13, 1), (49, 4)])
def test_no_tick_lies_between_two_layers(layers: int, tick: int) -> None:
    rows: list[dict[str, Value]] = [{"layer": layer, "value": layer * 0.1} for layer in range(layers)]
    axis = drawn(rows, Figure("line", "", "layer", "value"))["layout"]["xaxis"]
    assert axis["dtick"] == tick
    assert ("range" in axis) == (layers == 1)


def test_what_is_compared_has_one_colour_in_every_figure_of_a_result() -> None:
    rows: list[dict[str, Value]] = [
        {"layer": layer, "value": 0.1 * layer, "of": name, "measure": measure}
        for measure, names in (("accuracy", ("deep", "most frequent", "fbank")), ("control", ("deep", "fbank")))
        for name in names
        for layer in range(3)
    ]
    colours = {}
    for measure in ("accuracy", "control"):
        made = drawn(rows, Figure("line", measure, "layer", "value", by="of", where={"measure": measure}))
        colours[measure] = {curve["name"]: curve["line"]["color"] for curve in made["data"]}
    assert len(set(colours["accuracy"].values())) == 3
    assert colours["control"] == {name: colours["accuracy"][name] for name in ("deep", "fbank")}


def test_a_long_curve_has_no_markers() -> None:
    rows: list[dict[str, Value]] = [{"step": step, "loss": 1 / step} for step in range(1, 100)]
    assert drawn(rows, Figure("line", "", "step", "loss"))["data"][0]["mode"] == "lines"
