"""Curves and bars: a value against the layer, the step or a name."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from app.palette import INK, TWIN, Theme, faded, ruler, style
from app.sheet import axes, fit, groups, layout, marked, ordered, picked, shown, widen
from app.tables import Row, number
from engine.run import Figure, Value

COMPARED = ("upstream", "curve")  # columns among whose values are some to compare with, which never change
MARKED = 40  # points of a curve up to which each has its marker
ROOM, HEIGHT = 4, 330  # curves whose names fit below the plot, and pixels to draw in where there are more
CROWDED = 3  # bands from which on they are drawn fainter


def line(
    rows: Sequence[Row], figure: Figure, theme: Theme, places: Mapping[str, int], chosen: Mapping[str, Value]
) -> dict[str, Any]:
    """A curve for each `by`. A twin with random weights has its upstream's colour, thin and dotted.

    Among upstreams, one that never changes is something to compare with: thin, grey, dashed, unmarked.
    """
    bands, curves = [], []
    found = groups(rows, figure.by)
    called = _called(list(found))
    crowd = sum(any(f"{figure.y}_low" in row for row in group) for group in found.values())
    for name, group in found.items():
        group = ordered(group, figure.x)
        y = [number(row.get(figure.y)) for row in group]
        if not any(value is not None for value in y):
            continue
        x = [shown(row.get(figure.x)) for row in group]
        flat = figure.by.endswith(COMPARED) and len(found) > 1 and len(set(x)) > 1 and len(set(y)) == 1
        twin = TWIN in name and not flat
        look = _look(places.get(name, 0), theme, flat=flat, twin=twin, long=len(x) > MARKED)
        curves.append(
            {
                "type": "scatter",
                "mode": "lines" if flat or len(x) > MARKED else "lines+markers",
                "name": called[name],
                "legendgroup": escape(name),
                "x": x,
                "y": y,
                **look,
                "hovertemplate": f"{called[name]}: %{{y:.4~g}}<extra></extra>",
                **picked(group, figure),
                **marked(group, figure, chosen),
            }
        )
        share = (0.16 if crowd < CROWDED else 0.1) * (0.6 if twin else 1.0)
        band = _band(group, figure, look["line"]["color"], name, share)
        if band and not flat:
            bands.append(band)
    made = layout(figure.title, theme, legend=len(curves) > 1)
    made["hovermode"] = "x unified"
    if len(curves) > ROOM:
        made["height"] = HEIGHT + 21 * math.ceil(len(curves) / 3)
    at = [row.get(figure.x) for row in rows]
    # Words stand side by side also where they read as numbers, such as the steps 1, 2, 4, 8 ...
    made = axes(made, figure, theme, x_type="category" if all(isinstance(x, str) for x in at) else "")
    fit(made["xaxis"], at)
    widen(made["yaxis"], [row.get(figure.y) for row in rows])
    return {"data": bands + curves, "layout": made}


def _look(place: int, theme: Theme, *, flat: bool, twin: bool, long: bool) -> dict[str, Any]:
    if flat:
        return {"line": {"width": 1.5, **ruler(place, theme)}}
    look = style(place, theme)
    # Markers tell curves apart where there is room for them, dashes where there is none.
    dash = "dot" if twin else look["dash"] if long else "solid"
    marker = {"color": look["color"], "symbol": look["symbol"] + ("-open" if twin else ""), "size": 5 if twin else 7}
    return {"line": {"color": look["color"], "width": 1.4 if twin else 2.2, "dash": dash}, "marker": marker}


def _called(names: Sequence[str]) -> dict[str, str]:
    """What the legend calls each name: without the maker, where that leaves no two alike."""
    short = {name: (TWIN if TWIN in name else "") + name.removeprefix(TWIN).rpartition("/")[2] for name in names}
    alike = len(set(short.values())) < len(short) or any(": " in name for name in names)
    return {name: escape(name if alike or not short[name] else short[name]) for name in names}


def _band(group: Sequence[Row], figure: Figure, colour: str, name: str, share: float) -> dict[str, Any] | None:
    ends = [
        (shown(row.get(figure.x)), low, high)
        for row in group
        if (low := number(row.get(f"{figure.y}_low"))) is not None
        and (high := number(row.get(f"{figure.y}_high"))) is not None
    ]
    if len(ends) < 2:
        return None
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [x for x, _, _ in ends] + [x for x, _, _ in reversed(ends)],
        "y": [low for _, low, _ in ends] + [high for _, _, high in reversed(ends)],
        "fill": "toself",
        "fillcolor": faded(colour, share),
        "line": {"width": 0},
        "legendgroup": escape(name),
        "showlegend": False,
        "hoverinfo": "skip",
    }


def bar(
    rows: Sequence[Row], figure: Figure, theme: Theme, places: Mapping[str, int], chosen: Mapping[str, Value]
) -> dict[str, Any]:
    """A bar for each x, and for each `by` beside it."""
    data = []
    found = groups(rows, figure.by)
    called = _called(list(found))
    for name, group in found.items():
        group = ordered(group, figure.x)
        one: dict[str, Any] = {
            "type": "bar",
            "name": called[name],
            "x": [str(shown(row.get(figure.x))) for row in group],
            "y": [number(row.get(figure.y)) for row in group],
            "marker": {"color": style(places.get(name, 0), theme)["color"]},
            "hovertemplate": "%{x}: %{y:.4~g}<extra>" + (called[name] if figure.by else "") + "</extra>",
            **picked(group, figure),
            **marked(group, figure, chosen),
        }
        if TWIN in name:
            one["marker"]["pattern"] = {"shape": "/", "solidity": 0.3}
        spread = [[number(row.get(figure.y + end)) for row in group] for end in ("_low", "_high")]
        if all(value is not None for value in spread[0] + spread[1] + one["y"]):
            below = [y - low for y, low in zip(one["y"], spread[0], strict=True)]
            above = [high - y for y, high in zip(one["y"], spread[1], strict=True)]
            lines = {"color": INK[theme], "thickness": 1.2, "width": 3}
            one["error_y"] = {"type": "data", "symmetric": False, "array": above, "arrayminus": below, **lines}
        data.append(one)
    made = layout(figure.title, theme, legend=len(data) > 1)
    made.update(barmode="group", bargap=0.25)
    return {"data": data, "layout": axes(made, figure, theme, x_type="category")}
