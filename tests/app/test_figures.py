"""Figures draw tables; what is drawn is checked without a browser, and against Plotly's own schema."""

import base64
import json
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from app import figures, maps, palette
from engine.run import Figure, Result, Value

ROWS: list[dict[str, Value]] = [
    {
        "layer": layer,
        "value": 0.1 * layer,
        "value_low": 0.1 * layer - 0.05,
        "value_high": 0.1 * layer + 0.05,
        "upstream": "deep",
    }
    for layer in (2, 0, 1)
] + [{"layer": layer, "value": 0.15, "upstream": "fbank"} for layer in range(3)]
LINE = Figure("line", "Accuracy", x="layer", y="value", by="upstream")


def drawn(rows: list[dict[str, Value]], figure: Figure, theme: palette.Theme = "light") -> dict[str, Any]:
    """A drawn figure that is plain JSON and that Plotly knows."""
    made = figures.draw(Result(rows), figure, theme)
    go.Figure(json.loads(json.dumps(made, allow_nan=False)))
    return made


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_line_has_bands_and_a_flat_curve_is_a_baseline(theme: palette.Theme) -> None:
    band, deep, fbank = drawn(ROWS, LINE, theme)["data"]
    assert deep["x"] == [0, 1, 2] and deep["mode"] == "lines+markers"
    assert band["x"] == [0, 1, 2, 2, 1, 0] and band["y"][3] == pytest.approx(0.25)
    assert fbank["mode"] == "lines" and fbank["line"]["dash"] in palette.RULED
    assert deep["line"]["color"] != fbank["line"]["color"]


def test_only_rows_that_are_asked_for_are_drawn() -> None:
    figure = Figure("line", "Accuracy", x="layer", y="value", where={"upstream": "fbank"})
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
    assert len(by_number) == 1 and by_number[0]["marker"]["colorscale"][0][1] == palette.VIRIDIS[0]
    by_name = drawn(ROWS, Figure("scatter", "", x="layer", y="value", by="upstream"))["data"]
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
    assert heat["colorscale"][4] == [0.5, palette.DIFFERENCE["dark"][4]]


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
    pooled, x, y = maps.pool(cells, list(range(801)), ["row"])
    assert pooled.shape == (1, 267) and pooled[0, 0] == 3.0 and np.isnan(pooled[0, 1]) and x[1] == 3 and y == ["row"]


@pytest.mark.parametrize("kind", ["line", "heat", "bar", "scatter"])
def test_nothing_to_draw_says_so(kind: Any) -> None:
    made = drawn([{"layer": 0, "value": None}], Figure(kind, "Accuracy", x="layer", y="value", value="value"))
    assert made["data"] == [] and "nothing to draw" in made["layout"]["annotations"][0]["text"]


def test_names_cannot_bring_markup() -> None:
    rows: list[dict[str, Value]] = [{"layer": 0, "value": 1.0, "upstream": '<a href="javascript:x">'}]
    text = json.dumps(drawn(rows, Figure("line", "<b>t", x="layer", y="value", by="upstream", x_title="<i>")))
    assert "<a" not in text and "<b>" not in text and "<i>" not in text


def test_zoom_outlives_a_redraw() -> None:
    assert drawn(ROWS, LINE)["layout"]["uirevision"] == drawn(ROWS[:3], LINE)["layout"]["uirevision"]


def test_failed_is_told_in_the_colour_of_failure() -> None:
    made = figures.failed("The file is gone. Choose another.", "dark")
    assert made["layout"]["annotations"][0]["font"]["color"] != palette.FAINT["dark"]


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
        {"layer": layer, "value": 0.1 * layer, "upstream": name, "measure": measure}
        for measure, names in (("accuracy", ("deep", "most frequent", "fbank")), ("control", ("deep", "fbank")))
        for name in names
        for layer in range(3)
    ]
    colours = {}
    for measure in ("accuracy", "control"):
        made = drawn(rows, Figure("line", measure, "layer", "value", by="upstream", where={"measure": measure}))
        colours[measure] = {curve["name"]: curve["line"]["color"] for curve in made["data"]}
    assert len(set(colours["accuracy"].values())) == 3
    assert colours["control"] == {name: colours["accuracy"][name] for name in ("deep", "fbank")}


def test_a_long_curve_has_no_markers() -> None:
    rows: list[dict[str, Value]] = [{"step": step, "loss": 1 / step} for step in range(1, 100)]
    assert drawn(rows, Figure("line", "", "step", "loss"))["data"][0]["mode"] == "lines"


def test_a_twin_has_the_colour_of_its_upstream_and_rulers_are_grey() -> None:
    names = ["hubert", "random:hubert", "hf:b/wavlm", "random:hf:b/wavlm", "fbank", "most frequent class"]
    rows: list[dict[str, Value]] = [
        {"layer": layer, "value": 0.5 if place > 3 else 0.1 * layer + place, "upstream": name}
        for place, name in enumerate(names)
        for layer in range(4)
    ]
    curves = drawn(rows, LINE)["data"]
    assert [curve["name"] for curve in curves] == ["hubert", "random:hubert", "wavlm", "random:wavlm", *names[4:]]
    colours = [curve["line"]["color"] for curve in curves]
    assert colours[0] == colours[1] != colours[2] == colours[3]
    assert set(colours[4:]) <= set(palette.RULERS["light"]) and colours[4] != colours[5]
    assert [curve["line"]["dash"] for curve in curves[:4]] == ["solid", "dot"] * 2


def test_names_that_would_be_alike_are_told_whole() -> None:
    rows: list[dict[str, Value]] = [
        {"layer": x, "value": x, "upstream": name} for x in range(2) for name in ("hf:a/x", "hf:b/x")
    ]
    assert [curve["name"] for curve in drawn(rows, LINE)["data"]] == ["hf:a/x", "hf:b/x"]


MATRIX: list[dict[str, Value]] = [
    {"layer": layer, "true": true, "predicted": predicted, "share": layer + (true == predicted)}
    for layer in range(3)
    for true in "210"
    for predicted in "210"
]
CONFUSION = Figure(
    "heat",
    "Confusion",
    "predicted",
    "true",
    value="share",
    slider="layer",
    opens=Figure("sounds", "Heard", table="examples.parquet"),
    on=("true", "predicted", "layer"),
)


def test_slider_shows_one_stop_and_keeps_the_colours() -> None:
    heat, _ = figures.draw(Result(MATRIX), CONFUSION, "light", at=1)["data"]
    assert heat["z"] == [[2, 1, 1], [1, 2, 1], [1, 1, 2]]
    assert (heat["zmin"], heat["zmax"]) == (0, 3)


def test_steps_that_are_named_stand_side_by_side() -> None:
    rows: list[dict[str, Value]] = [{"snapshot": name, "value": 0.5} for name in ("0", "1", "2", "1,024")]
    made = drawn(rows, Figure("line", "", "snapshot", "value"))
    assert made["layout"]["xaxis"]["type"] == "category" and made["data"][0]["x"] == ["0", "1", "2", "1,024"]


def test_cells_are_squares_and_names_stay_names() -> None:
    made = figures.draw(Result(MATRIX), CONFUSION, "light", at=1)
    heat = made["data"][0]
    assert heat["x"] == ["2", "1", "0"] and made["layout"]["xaxis"]["type"] == "category"
    assert made["layout"]["yaxis"]["scaleanchor"] == "x" and made["layout"]["yaxis"]["range"] == [2.5, -0.5]
    go.Figure(json.loads(json.dumps(made)))


def test_a_cell_tells_what_it_opens_and_a_chosen_one_is_marked() -> None:
    chosen: dict[str, Value] = {"true": "1", "predicted": "0", "layer": 2}
    targets = figures.draw(Result(MATRIX), CONFUSION, "light", at=1, chosen=chosen)["data"][1]
    (place,) = targets["selectedpoints"]  # at layer 1 too: the slider moves on, the cell stays
    assert targets["customdata"][place] == ["1", "0", 1, 1]
    assert (targets["x"][place], targets["y"][place]) == ("0", "1")


def test_points_of_all_stops_share_their_axes() -> None:
    rows: list[dict[str, Value]] = [{"layer": layer, "x": layer, "y": -layer, "phone": "a"} for layer in range(3)]
    figure = Figure("scatter", "", "x", "y", by="phone", slider="layer", opens=Figure("line", ""), on=("phone", "layer"))
    ranges = [
        [figures.draw(Result(rows), figure, "light", at=at)["layout"][axis]["range"] for axis in ("xaxis", "yaxis")]
        for at in (0, 2)
    ]
    assert ranges[0] == ranges[1] == [pytest.approx([-0.08, 2.08]), pytest.approx([-2.08, 0.08])]
    assert drawn(rows, figure)["data"][0]["customdata"] == [["a", 0], ["a", 1], ["a", 2]]


def test_many_points_travel_packed_and_sixty_names_stay_apart() -> None:
    rows: list[dict[str, Value]] = [{"x": i / 7, "y": i % 9, "phone": f"p{i % 60}"} for i in range(6_000)]
    data = drawn(rows, Figure("scatter", "", "x", "y", by="phone"))["data"]
    assert data[0]["type"] == "scattergl"
    x = np.frombuffer(base64.b64decode(data[0]["x"]["bdata"]), np.float32)
    assert x[1] == pytest.approx(60 / 7)
    assert len({(trace["marker"]["color"], trace["marker"]["symbol"]) for trace in data}) == 60


def test_a_class_that_is_always_known_is_no_ruler() -> None:
    rows: list[dict[str, Value]] = [
        {"layer": layer, "value": 1.0 if name == "a" else layer / 3, "phone": name} for name in "ab" for layer in range(3)
    ]
    curve = drawn(rows, Figure("line", "", "layer", "value", by="phone"))["data"][0]
    assert curve["line"]["color"] == palette.RUNS["light"][0] and curve["mode"] == "lines+markers"


def test_cells_that_are_all_alike_are_as_bright_as_they_are_high() -> None:
    for value, ends in ((1.0, (0.0, 1.0)), (0.0, (0.0, 1.0)), (-2.0, (-2.0, -1.0))):
        rows: list[dict[str, Value]] = [{"a": 0, "b": 0, "v": value}]
        (heat,) = drawn(rows, Figure("heat", "", x="b", y="a", value="v"))["data"]
        assert (heat["zmin"], heat["zmax"]) == ends


def test_what_stands_on_both_sides_stands_in_one_order_at_every_stop() -> None:
    seen = [("b", "a", 0), ("a", "b", 0), ("c", "b", 1)]
    rows: list[dict[str, Value]] = [
        {"true": true, "predicted": read, "layer": layer, "share": 0.5} for true, read, layer in seen
    ]
    for layer in (0, 1):
        figure = Figure("heat", "", x="predicted", y="true", value="share", slider="layer")
        (heat,) = figures.draw(Result(rows), figure, "light", at=layer)["data"]
        assert heat["x"] == heat["y"] == ["b", "a", "c"]
    assert heat["z"] == [[None] * 3, [None] * 3, [0.5, None, None]]


def test_a_long_title_has_room_above_the_plot() -> None:
    short, long = (drawn(ROWS, Figure("line", title, "layer", "value"))["layout"] for title in ("Short", "word " * 40))
    assert long["title"]["text"].count("<br>") == 2
    assert long["margin"]["t"] == short["margin"]["t"] + 38
