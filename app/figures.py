"""Turns a result's table and a figure's description into Plotly JSON, in one house style.

Colours: Cividis and Viridis for magnitudes (Nunez, Anderton and Renslow 2018: even steps for colour-blind eyes too),
blue to orange around zero for differences, the palette of Okabe and Ito (2008) with dashes and markers for runs.
What is made here stays within what plotly.js 3.3 (Gradio) and 4.2 (Streamlit) both draw.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Literal

import numpy as np

from engine.run import Figure, Result, Value

Theme = Literal["light", "dark"]
Row = dict[str, Value]

CIVIDIS = (
    "#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838",
)  # fmt: skip
VIRIDIS = (
    "#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725",
)  # fmt: skip
DIFFERENCE = {
    "light": ("#0b4a8f", "#2f79b8", "#78b1d8", "#bcd9ea", "#f4f5f6", "#fbd9b0", "#f5b066", "#df7f1e", "#a3500a"),
    "dark": ("#7cc0ff", "#4a97dd", "#2a6fae", "#174a78", "#161c26", "#6b3d0c", "#ad620c", "#e08a1c", "#ffad45"),
}
# Okabe and Ito's colours; in the dark, black becomes white and the two darkest are lightened.
RUNS = {
    "light": ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8a7a00"),
    "dark": ("#56b4e9", "#ff8a3d", "#2cc79a", "#e39bc4", "#f2b632", "#6f9bff", "#ffffff", "#f0e442"),
}
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down")
INK = {"light": "#1f2937", "dark": "#e5e7eb"}
FAINT = {"light": "#667085", "dark": "#98a2b3"}
GRID = {"light": "#e4e7ec", "dark": "#2b3442"}
MOST_ROWS, MOST_COLUMNS = 200, 400
MARKED = 40  # points of a curve up to which each has its marker
WHOLE = 60  # whole numbers an axis spans up to which each tick is one of them
BIG = 20_000  # cells above which a heat map travels as 8-bit steps with a scale
FONT = "IBM Plex Sans, ui-sans-serif, system-ui, sans-serif"


Places = Mapping[str, int]  # which colour, dash and marker of the house's each curve has


def draw(result: Result, figure: Figure, theme: Theme) -> dict[str, Any]:
    """The figure as Plotly JSON; one that says so where the table holds nothing to draw."""
    rows = [row for row in result.table if all(row.get(name) == value for name, value in figure.where.items())]
    shown = figure.value if figure.kind == "heat" else figure.y
    if not any(_number(row.get(shown)) is not None for row in rows):
        return empty(f"{figure.title}: there is nothing to draw yet.", theme)
    if figure.kind == "heat":
        return _heat(rows, figure, theme)
    # What is compared has one colour in every figure of a result, whichever of it a figure shows.
    places = {
        name: place for place, name in enumerate(_groups([row for row in result.table if figure.by in row], figure.by))
    }
    return {"line": _line, "bar": _bar, "scatter": _scatter}[figure.kind](rows, figure, theme, places)


def empty(text: str, theme: Theme) -> dict[str, Any]:
    """An empty figure that says why it is empty."""
    return _say(text, FAINT[theme], theme)


def failed(text: str, theme: Theme) -> dict[str, Any]:
    """A figure that says what went wrong and what to do."""
    return _say(text, {"light": "#b42318", "dark": "#fda29b"}[theme], theme)


def _say(text: str, colour: str, theme: Theme) -> dict[str, Any]:
    layout = _layout("", theme)
    hidden = {"visible": False, "fixedrange": True}
    words = {"text": _wrap(text), "showarrow": False, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5}
    layout.update(xaxis=hidden, yaxis=hidden, annotations=[{**words, "font": {"size": 14, "color": colour}}])
    return {"data": [], "layout": layout}


def _line(rows: Sequence[Row], figure: Figure, theme: Theme, places: Places) -> dict[str, Any]:
    """A curve for each `by`; one among others that never changes is a baseline: thin, dashed, unmarked."""
    bands, curves = [], []
    groups = _groups(rows, figure.by)
    for name, group in groups.items():
        group = _sorted(group, figure.x)
        y = [_number(row.get(figure.y)) for row in group]
        if not any(value is not None for value in y):
            continue
        x = [_shown(row.get(figure.x)) for row in group]
        style = _style(places.get(name, 0), theme)
        flat = len(groups) > 1 and len(set(x)) > 1 and len(set(y)) == 1
        curves.append(
            {
                "type": "scatter",
                "mode": "lines" if flat or len(x) > MARKED else "lines+markers",
                "name": escape(name),
                "legendgroup": escape(name),
                "x": x,
                "y": y,
                "line": {"color": style["color"], "width": 1.5 if flat else 2.2, "dash": "dash" if flat else style["dash"]},
                "marker": {"color": style["color"], "symbol": style["symbol"], "size": 7},
                "hovertemplate": f"{escape(name)}: %{{y:.4~g}}<extra></extra>",
            }
        )
        band = _band(group, figure, style["color"], name)
        if band and not flat:
            bands.append(band)
    layout = _layout(figure.title, theme, legend=len(curves) > 1)
    layout["hovermode"] = "x unified"
    layout = _axes(layout, figure, theme)
    _fit(layout["xaxis"], [row.get(figure.x) for row in rows])
    _widen(layout["yaxis"], [row.get(figure.y) for row in rows])
    return {"data": bands + curves, "layout": layout}


def _band(group: Sequence[Row], figure: Figure, colour: str, name: str) -> dict[str, Any] | None:
    ends = [
        (_shown(row.get(figure.x)), low, high)
        for row in group
        if (low := _number(row.get(f"{figure.y}_low"))) is not None
        and (high := _number(row.get(f"{figure.y}_high"))) is not None
    ]
    if len(ends) < 2:
        return None
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [x for x, _, _ in ends] + [x for x, _, _ in reversed(ends)],
        "y": [low for _, low, _ in ends] + [high for _, _, high in reversed(ends)],
        "fill": "toself",
        "fillcolor": _faded(colour, 0.16),
        "line": {"width": 0},
        "legendgroup": escape(name),
        "showlegend": False,
        "hoverinfo": "skip",
    }


def _bar(rows: Sequence[Row], figure: Figure, theme: Theme, places: Places) -> dict[str, Any]:
    data = []
    for name, group in _groups(rows, figure.by).items():
        group = _sorted(group, figure.x)
        bar: dict[str, Any] = {
            "type": "bar",
            "name": escape(name),
            "x": [str(_shown(row.get(figure.x))) for row in group],
            "y": [_number(row.get(figure.y)) for row in group],
            "marker": {"color": _style(places.get(name, 0), theme)["color"]},
            "hovertemplate": "%{x}: %{y:.4~g}<extra>" + (escape(name) if figure.by else "") + "</extra>",
        }
        spread = [[_number(row.get(figure.y + end)) for row in group] for end in ("_low", "_high")]
        if all(value is not None for value in spread[0] + spread[1] + bar["y"]):
            below = [y - low for y, low in zip(bar["y"], spread[0], strict=True)]
            above = [high - y for y, high in zip(bar["y"], spread[1], strict=True)]
            lines = {"color": INK[theme], "thickness": 1.2, "width": 3}
            bar["error_y"] = {"type": "data", "symmetric": False, "array": above, "arrayminus": below, **lines}
        data.append(bar)
    layout = _layout(figure.title, theme, legend=len(data) > 1)
    layout.update(barmode="group", bargap=0.25)
    return {"data": data, "layout": _axes(layout, figure, theme, x_type="category")}


def _scatter(rows: Sequence[Row], figure: Figure, theme: Theme, places: Places) -> dict[str, Any]:
    shades = [_number(row.get(figure.by)) for row in rows] if figure.by else []
    if shades and all(shade is not None for shade in shades):
        bar = _bar_of_colours(figure.value_title or figure.by, theme)
        marker = {"color": shades, "colorscale": _scale(VIRIDIS), "size": 6, "showscale": True, "colorbar": bar}
        data = [{**_points(rows, figure), "marker": marker}]
    else:
        data = []
        for name, group in _groups(rows, figure.by).items():
            style = _style(places.get(name, 0), theme)
            marker = {"color": style["color"], "symbol": style["symbol"], "size": 7, "opacity": 0.85}
            data.append({**_points(group, figure), "name": escape(name), "marker": marker})
    layout = _layout(figure.title, theme, legend=len(data) > 1)
    layout["hovermode"] = "closest"
    return {"data": data, "layout": _axes(layout, figure, theme)}


def _points(rows: Sequence[Row], figure: Figure) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [_shown(row.get(figure.x)) for row in rows],
        "y": [_number(row.get(figure.y)) for row in rows],
        "hovertemplate": "%{x:.4~g}, %{y:.4~g}<extra></extra>" if _is_numeric(rows, figure.x) else "%{x}, %{y:.4~g}",
    }


def _heat(rows: Sequence[Row], figure: Figure, theme: Theme) -> dict[str, Any]:
    """`value` over x and y, pooled to at most 200 x 400 cells; big ones travel as 8-bit steps with a scale."""
    x, y = _places(rows, figure.x), _places(rows, figure.y)
    column, line = {value: i for i, value in enumerate(x)}, {value: i for i, value in enumerate(y)}
    cells = np.full((len(y), len(x)), np.nan)
    for row in rows:
        value = _number(row.get(figure.value))
        if value is not None:
            cells[line[row.get(figure.y)], column[row.get(figure.x)]] = value
    cells, x, y = pool(cells, x, y)
    low, high = float(np.nanmin(cells)), float(np.nanmax(cells))
    if figure.centred:
        high = max(abs(low), abs(high))
        low = -high
    high = high if high > low else low + 1.0
    trace: dict[str, Any] = {
        "type": "heatmap",
        "x": [_shown(value) for value in x],
        "y": [_shown(value) for value in y],
        "colorscale": _scale(DIFFERENCE[theme] if figure.centred else CIVIDIS),
        "colorbar": _bar_of_colours(figure.value_title or figure.value, theme),
        "hoverongaps": False,
    }
    place = f"{escape(figure.x_title or figure.x)} %{{x}}, {escape(figure.y_title or figure.y)} %{{y}}"
    if cells.size > BIG and not np.isnan(cells).any():
        steps = np.rint((cells - low) / (high - low) * 255).astype(np.uint8)
        marks = np.linspace(low, high, 5)
        trace.update(z=_packed(steps), zmin=0, zmax=255, hovertemplate=f"{place}<extra></extra>")
        trace["colorbar"].update(tickvals=[0, 63.75, 127.5, 191.25, 255], ticktext=[f"{mark:.3g}" for mark in marks])
    else:
        whole = [[None if math.isnan(value) else float(f"{value:.5g}") for value in values] for values in cells]
        trace.update(z=whole, zmin=low, zmax=high, hovertemplate=f"{place}: %{{z:.4~g}}<extra></extra>")
    layout = _axes(_layout(figure.title, theme), figure, theme)
    layout["xaxis"]["showgrid"] = layout["yaxis"]["showgrid"] = False
    _fit(layout["xaxis"], x)
    _fit(layout["yaxis"], y)
    return {"data": [trace], "layout": layout}


def pool(cells: np.ndarray[Any, Any], x: list[Any], y: list[Any]) -> tuple[np.ndarray[Any, Any], list[Any], list[Any]]:
    """Means of blocks of neighbouring cells, so that at most 200 x 400 remain; a block is named by its first cell."""
    down, across = (math.ceil(size / most) for size, most in zip(cells.shape, (MOST_ROWS, MOST_COLUMNS), strict=True))
    if down == across == 1:
        return cells, x, y
    known = ~np.isnan(cells)
    starts = np.arange(0, cells.shape[0], down), np.arange(0, cells.shape[1], across)

    def added(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        summed: np.ndarray[Any, Any] = np.add.reduceat(np.add.reduceat(values, starts[0], 0), starts[1], 1)
        return summed

    count = added(known.astype(float))
    mean = np.where(count > 0, added(np.where(known, cells, 0.0)) / np.maximum(count, 1), np.nan)
    return mean, x[::across], y[::down]


def _layout(title: str, theme: Theme, *, legend: bool = False) -> dict[str, Any]:
    return {
        "title": {"text": _wrap(title, 70), "x": 0, "xref": "paper", "xanchor": "left", "font": {"size": 15}},
        "font": {"family": FONT, "size": 12, "color": INK[theme]},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 56, "r": 16, "t": 44 if title else 16, "b": 48},
        "showlegend": legend,
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": -0.2, "yanchor": "top", "font": {"size": 12}},
        "hoverlabel": {
            "bgcolor": {"light": "#ffffff", "dark": "#111827"}[theme],
            "bordercolor": GRID[theme],
            "font": {"color": INK[theme], "family": FONT},
        },
        "uirevision": escape(title) or "says",  # zoom and hidden curves outlive a redraw
    }


def _axes(layout: dict[str, Any], figure: Figure, theme: Theme, x_type: str = "") -> dict[str, Any]:
    for axis, text in (("xaxis", figure.x_title or figure.x), ("yaxis", figure.y_title or figure.y)):
        layout[axis] = {
            "title": {"text": escape(text), "standoff": 8},
            "gridcolor": GRID[theme],
            "linecolor": GRID[theme],
            "zeroline": False,
            "automargin": True,
        }
    if x_type:
        layout["xaxis"]["type"] = x_type
    return layout


def _fit(axis: dict[str, Any], values: Sequence[Value]) -> None:
    """Layers and steps are whole numbers: no tick between them."""
    whole = [value for value in values if isinstance(value, int) and not isinstance(value, bool)]
    if not whole or len(whole) < len(values):
        return
    span = max(whole) - min(whole)
    if span <= WHOLE:
        axis["dtick"] = max(1, math.ceil(span / 13))
    if not span:
        axis["range"] = [whole[0] - 0.6, whole[0] + 0.6]


def _widen(axis: dict[str, Any], values: Sequence[Value]) -> None:
    """Left alone, a curve that never changes gets an axis from one below it to one above it, whatever its size."""
    known = {number for value in values if (number := _number(value)) is not None}
    if len(known) == 1:
        value = known.pop()
        room = abs(value) * 0.1 or 1.0
        axis["range"] = [value - room, value + room]


def _bar_of_colours(title: str, theme: Theme) -> dict[str, Any]:
    words = {"text": _wrap(title, 40), "side": "right", "font": {"color": INK[theme], "size": 12}}
    return {"title": words, "thickness": 12, "outlinewidth": 0, "tickfont": {"color": FAINT[theme]}}


def _style(place: int, theme: Theme) -> dict[str, str]:
    return {
        "color": RUNS[theme][place % len(RUNS[theme])],
        "dash": DASHES[place % len(DASHES)],
        "symbol": MARKERS[place % len(MARKERS)],
    }


def _scale(colours: Sequence[str]) -> list[list[float | str]]:
    return [[place / (len(colours) - 1), colour] for place, colour in enumerate(colours)]


def _groups(rows: Sequence[Row], by: str) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(row.get(by)) if by else "", []).append(row)
    return groups


def _places(rows: Sequence[Row], column: str) -> list[Value]:
    found = list(dict.fromkeys(row.get(column) for row in rows))
    if all(_number(value) is not None for value in found):
        found.sort(key=lambda value: _number(value) or 0.0)
    return found


def _sorted(rows: Sequence[Row], column: str) -> list[Row]:
    return sorted(rows, key=lambda row: _number(row.get(column)) or 0.0) if _is_numeric(rows, column) else list(rows)


def _is_numeric(rows: Sequence[Row], column: str) -> bool:
    return all(_number(row.get(column)) is not None for row in rows)


def _number(value: Value) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _shown(value: Value) -> str | int | float | None:
    return escape(value) if isinstance(value, str) else value


def _faded(colour: str, share: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{share})"


def _wrap(text: str, width: int = 60) -> str:
    """Safe text broken into lines; Plotly reads a small part of HTML in titles."""
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + len(word) >= width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "<br>".join(escape(part) for part in (*lines, line))


def _packed(values: np.ndarray[Any, Any]) -> dict[str, str]:
    """The compact form of an array of bytes that plotly.js has read since 2.35."""
    shape = ", ".join(str(size) for size in values.shape)
    return {"dtype": "u1", "bdata": base64.b64encode(values.tobytes()).decode(), "shape": shape}
