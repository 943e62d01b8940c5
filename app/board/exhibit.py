"""One figure of a result: its slider, what a chosen cell or point opens, and what can be taken away from it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import streamlit as st

from app import figures, tables, workbench, writing
from app.board import widgets
from app.palette import Theme
from engine.errors import AuscultError, Refused
from engine.run import Figure, Result, Value

PLAYED = 8  # clips of a choice that get a player
HEIGHT = 380
OPENED = 320  # pixels of a figure that a choice opens
UNFOLDED, TALL = 5, 540  # clips that are shown whole; more scroll within so many pixels
BESIDE = ("utterance", "start", "end", "file")  # columns of a clip that are told in words
WAYS = ("Python", "Command", "YAML")


@dataclass(frozen=True)
class Source:
    """Where figures come from: a result, the folder of the files that it left, and the settings that made it."""

    result: Result
    artifacts: Path
    document: Mapping[str, Any]
    job: str


@st.fragment
def show(source: Source, figure: Figure, key: str) -> None:
    """Draw a figure, and beside it what was chosen in it."""
    try:
        if figure.opens is None:
            _draw(source, figure, key, HEIGHT)
            return
        left, right = st.columns([3, 2], gap="medium")
        with left:
            chosen = _draw(source, figure, key, HEIGHT)
        with right:
            try:
                _open(source, figure, figure.opens, chosen, f"{key} opened")
            except AuscultError as error:
                widgets.refusal("What is behind it cannot be shown", str(error))
    except AuscultError as error:
        widgets.refusal(f"{figure.title} cannot be shown", str(error))


def is_wide(figure: Figure) -> bool:
    """Whether a figure needs the whole width of a page."""
    return figure.opens is not None or figure.kind == "sounds"


def _draw(source: Source, figure: Figure, key: str, height: int, hidden: Collection[str] = ()) -> dict[str, Value]:
    """Draw a figure where its slider stands; what is chosen in it, by the columns that it opens by."""
    table = tables.of(source.result, figure, source.artifacts)
    at = _slide(figure, tables.stops(table, figure), key)
    if figure.kind == "sounds":
        _play(source, figure, figures.drawn(table, figure, at), hidden)
        return {}
    picture = str(st.session_state.get(f"picture {key}") or "PNG")
    chosen: dict[str, Value] = st.session_state.setdefault(f"chosen {key}", {})
    marked = _marked(key, [at, widgets.theme(), picture], chosen)
    drawn = _drawn(table, figure, widgets.theme(), at, marked)
    name = f"{source.job} {figure.title}"
    points = widgets.chart(drawn, key, height=height, picks=figure.opens is not None, picture=(picture.lower(), name))
    if points and isinstance(points[0].get("customdata"), list):
        chosen = dict(zip(figure.on, points[0]["customdata"], strict=False))
        st.session_state[f"chosen {key}"] = chosen
    _save(source, figure, figures.drawn(table, figure, at), name, key)
    # A file that both draw from has the rows of every stop.
    moves = figure.slider in figure.on or (figure.opens is not None and figure.slider and figure.opens.table == figure.table)
    return {**chosen, figure.slider: at} if chosen and moves else chosen


def _slide(figure: Figure, stops: list[Value], key: str) -> Value:
    if len(stops) < 2:
        return stops[0] if stops else None
    place = f"at {key}"
    if st.session_state.get(place) not in stops:
        st.session_state[place] = stops[len(stops) // 2]
    said: Value = st.select_slider(figure.slider.replace("_", " ").capitalize(), stops, key=place)
    return said


def _marked(key: str, now: list[Value], chosen: dict[str, Value]) -> dict[str, Value]:
    """The choice that the drawing marks. A drawing that changes forgets what a click is just telling, and the browser
    marks what is clicked by itself: so the mark follows only where something else changes the drawing anyway."""
    kept = st.session_state.get(f"marked {key}")
    if kept is None or kept[0] != now:
        kept = st.session_state[f"marked {key}"] = (now, dict(chosen))
    marked: dict[str, Value] = kept[1]
    return marked


def _drawn(table: tables.Table, figure: Figure, theme: Theme, at: Value, marked: dict[str, Value]) -> dict[str, Any]:
    try:
        return figures.draw(table, figure, theme, at=at, chosen=marked)
    except Exception as error:  # a figure that names what its table does not have must not hide the table
        return figures.failed(f"{figure.title} could not be drawn ({type(error).__name__}).", theme)


def _open(source: Source, figure: Figure, opens: Figure, chosen: dict[str, Value], key: str) -> None:
    """What a chosen cell or point opens: the same kind of figure, of the rows that agree with it."""
    if not chosen:
        thing = "cell" if figure.kind == "heat" else "bar" if figure.kind == "bar" else "point"
        does = "hear" if opens.kind == "sounds" else "see"
        widgets.panel("plain", opens.title, f"Choose a {thing} to {does} what is behind it.")
        return
    st.markdown(f"**{widgets.plain(opens.title)}**  \n{widgets.plain(_told(chosen))}")
    opened = replace(opens, title="", where={**opens.where, **chosen})
    _draw(
        source,
        opened,
        f"{key} {sorted(chosen.items(), key=str)}",
        OPENED,
        {figure.x, figure.y} if opens.table == figure.table else (),
    )


def _told(values: Mapping[str, Value]) -> str:
    """Columns and their values in one line."""
    said = ((name.replace("_", " "), value) for name, value in values.items() if value not in (None, ""))
    return " · ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in said)


def _play(source: Source, figure: Figure, table: tables.Table, hidden: Collection[str]) -> None:
    """The first clips of a table, each with what is known of it but for what places it in a drawing."""
    rows = table.lines(PLAYED)
    if not rows:
        widgets.panel("plain", "No sound", "Nothing was kept to listen to here.")
        return
    about = source.result.facts.get("corpus")
    if not isinstance(about, dict) or not {"utterance", "start", "end"} <= rows[0].keys():
        widgets.refusal("It cannot be played", "The result does not say which recordings these are.")
        return
    if len(table) > len(rows):
        st.caption(f"The first {len(rows)} of {len(table):,}.")
    if len(rows) > UNFOLDED:
        with st.container(height=TALL, border=False):
            _players(source, rows, figure, about, hidden)
    else:
        _players(source, rows, figure, about, hidden)


def _players(
    source: Source, rows: list[tables.Row], figure: Figure, about: Mapping[str, Any], hidden: Collection[str]
) -> None:
    for row in rows:
        utterance, start, end = str(row["utterance"]), tables.number(row["start"]), tables.number(row["end"])
        if start is None or end is None:
            continue
        try:
            if row.get("file"):  # a sound that the run has made
                widgets.sound(_kept(source, str(row["file"])), _told(_beside(row, figure, hidden)), utterance)
                continue
            clip = workbench.clip(str(about.get("name")), str(about.get("content")), utterance, start, end)
        except AuscultError as error:
            widgets.refusal("It cannot be played", str(error))
            return
        more = _told(_beside(row, figure, hidden))
        place = f"{utterance}, {start:.2f} to {end:.2f} s · {clip.start:.2f} to {clip.end:.2f} s of this clip"
        widgets.sound(clip.wav, more, place)


def _beside(row: tables.Row, figure: Figure, hidden: Collection[str]) -> dict[str, Value]:
    """What is told of a clip beside its place."""
    agreed = {*BESIDE, *figure.where, figure.slider, *hidden}
    return {name: value for name, value in row.items() if name not in agreed and not name.startswith("_")}


def _kept(source: Source, name: str) -> bytes:
    """A sound among the files that the run left."""
    try:
        return (source.artifacts / Path(name).name).read_bytes()
    except OSError as error:
        raise Refused(f"The sound {name} is not among the files of this run any more.") from error


def _save(source: Source, figure: Figure, table: tables.Table, name: str, key: str) -> None:
    """The figure as a picture, its numbers, and the run behind it in three languages."""
    with st.popover("Save", type="tertiary", icon=":material/download:"):
        st.segmented_control("Picture", ["PNG", "SVG"], default="PNG", key=f"picture {key}")
        st.caption("The camera at the figure's top right corner saves it.")
        st.download_button(
            "What is drawn, as CSV",
            lambda: widgets.as_csv(table.lines()),
            f"{widgets.file_name(name)}.csv",
            "text/csv",
            key=f"csv {key}",
            on_click="ignore",
        )
        way = st.segmented_control("The run, to copy", WAYS, default="Python", key=f"way {key}")
        if way == "Command":
            st.code(writing.command(source.document), language="bash", wrap_lines=True)
        elif way == "YAML":
            st.code(writing.as_yaml(source.document), language="yaml")
        else:
            st.code(writing.as_python(source.document), language="python", wrap_lines=True)
