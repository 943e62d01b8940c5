"""Board / Results: the table and figures of any finished job, what made them, and several of them compared."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from app import comparison, summaries, writing
from app.board import exhibit, widgets
from engine.errors import AuscultError, Refused
from engine.job import Job
from engine.run import Result

TITLE = "Results"
ORDER = 10

LARGEST_FILE = 200_000_000  # bytes that a browser is asked to take; what is larger is told by its place
MOST_COMPARED = 8
FRESH = 3  # seconds between two looks at a result that is not whole yet


def render() -> None:
    """Choose, look, and see where it comes from."""
    rows = [row for row in summaries.LEDGER.rows() if row.has_result]
    asked = str(st.query_params.get("job", ""))
    if asked and asked not in {row.id for row in rows}:
        row = summaries.LEDGER.row(asked)
        if row is None:
            widgets.panel("wait", "This job is not here", "It may have been deleted. Choose another one below.")
        elif row.has_result:
            rows = [row, *rows]
        else:
            link = (f"/board/jobs?job={asked}", "Watch it in Jobs")
            said = f"{row.state_text}: {row.reason}" if row.reason else f"Its state is: {row.state_text.lower()}."
            widgets.panel("wait", f"{row.title} has no result", said, link)
    if not rows:
        link = ("/studio/?tab=run", "Start a run in Studio")
        widgets.panel("plain", "No result yet", "When a run has finished, its table and figures are shown here.", link)
        return
    chosen, others = _choose(rows, asked)
    st.query_params["job"] = chosen.id
    compared = [chosen, *others]
    documents = {row.id: summaries.document(_job(row.id)) for row in compared}
    names = comparison.labels(documents) if others else {chosen.id: chosen.title}
    read = {names[row.id]: result for row in compared if (result := _read(row)) is not None}
    if not read:
        return
    result = next(iter(read.values())) if len(read) == 1 else comparison.merge(read)
    _summary(chosen, read, documents, names)
    _figures(result, read, {names[row.id]: row.id for row in compared}, documents)
    _tabs(chosen, result, read, documents, names)
    widgets.follow_theme(widgets.theme())


def _choose(rows: list[summaries.Summary], asked: str) -> tuple[summaries.Summary, list[summaries.Summary]]:
    known = {row.id: row for row in rows}
    one, more = st.columns([3, 4])

    # What is chosen is known by its text: no two texts may be the same, and none may change while the page is open.
    def say(id: str) -> str:
        row = known[id]
        return " · ".join(part for part in (row.title, row.about, row.when, id[-4:]) if part)

    with one:
        start = list(known).index(asked) if asked in known else 0
        id = st.selectbox("Result", list(known), index=start, format_func=say, key=f"result {asked in known and asked}")
    chosen = known[id]
    alike = {row.id: row for row in rows if row.run == chosen.run and row.id != chosen.id}
    labels = comparison.labels({row.id: summaries.document(_job(row.id)) for row in [chosen, *alike.values()]})
    with more:
        picked = st.multiselect(
            "Compare with",
            list(alike),
            format_func=lambda id: f"{labels[id]} · {alike[id].when}",
            max_selections=MOST_COMPARED - 1,
            placeholder=f"Other results of {chosen.title}" if alike else f"There is no other result of {chosen.title}",
            disabled=not alike,
            key=f"compared {chosen.id}",
        )
    return chosen, [alike[id] for id in picked]


def _job(id: str) -> Job:
    job = summaries.find(id)
    if job is None:
        raise Refused(f"Job {id} is not there any more.")
    return job


def _read(row: summaries.Summary) -> Result | None:
    """The result of a job; one that cannot be read is said, and the others are shown."""
    try:
        return _job(row.id).so_far()
    except AuscultError as error:
        said = str(error)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        said = "Its result.json is damaged or was written by another version. Run it again with the same settings."
    widgets.refusal(f"The result of {row.id} cannot be read", said, (f"/studio/?tab=run&from={row.id}", "Run it again"))
    return None


def _summary(
    chosen: summaries.Summary, read: dict[str, Result], documents: dict[str, dict[str, Any]], names: dict[str, str]
) -> None:
    facts = next(iter(read.values())).facts
    if len(read) > 1:
        widgets.head(f"{len(read)} results of {chosen.title}", "finished", "Compared", [])
        changed = comparison.differences(documents)
        if changed:
            frame = pd.DataFrame(
                {name: {names[id]: _said(value) for id, value in at.items()} for name, at in changed.items()}
            )
            st.dataframe(frame, height="content")
        return
    said = [chosen.about, f"took {_seconds(facts)}" if _seconds(facts) else "", _memory(facts)]
    said += [f"seed {facts['seed']}" if "seed" in facts else "", str(facts.get("gpu") or facts.get("device") or "")]
    notes = facts.get("notes")
    told = [str(note) for note in notes] if isinstance(notes, list) else []
    if chosen.state == "finished":
        widgets.head(chosen.title, "finished", "Finished", [*said, f"{chosen.age} ago"], told)
        return
    widgets.head(chosen.title, chosen.state, f"{chosen.state_text}: what there is so far", [*said, chosen.stage], told)
    _watch(chosen.id, _mark(chosen.id))


@st.fragment(run_every=FRESH)
def _watch(id: str, seen: float) -> None:
    """Draw the page anew when a run that goes on has found more."""
    if _mark(id) != seen:
        st.rerun()


def _mark(id: str) -> float:
    """When what is shown of a job was written."""
    job = _job(id)
    file = job.result_file if job.result_file.exists() else job.partial_file
    return file.stat().st_mtime if file.exists() else 0.0


def _seconds(facts: dict[str, Any]) -> str:
    value = facts.get("seconds")
    return summaries.span(float(value)) if isinstance(value, (int, float)) else ""


def _memory(facts: dict[str, Any]) -> str:
    value = facts.get("gpu_peak_megabytes") or facts.get("peak_megabytes")
    return f"{float(value):,.0f} MB at most" if isinstance(value, (int, float)) else ""


def _figures(result: Result, read: dict[str, Result], ids: dict[str, str], documents: dict[str, dict[str, Any]]) -> None:
    """Those that all results share, then each one's own; of those that are narrow two stand beside each other."""
    sources = {
        label: exhibit.Source(one, _job(ids[label]).folder / "artifacts", documents[ids[label]], ids[label])
        for label, one in read.items()
    }
    first = next(iter(sources.values()))
    shown = [(replace(first, result=result), figure) for figure in result.figures]
    if len(read) > 1:
        shown += [
            (source, replace(figure, title=f"{figure.title}: {label}"))
            for label, source in sources.items()
            for figure in source.result.figures
            if not comparison.is_shared(figure)
        ]
    narrow = sum(not exhibit.is_wide(figure) for _, figure in shown)
    columns: list[Any] = []
    for place, (source, figure) in enumerate(shown):
        if exhibit.is_wide(figure) or narrow == 1:
            spot = st.container(border=True)
        else:
            columns = columns or list(st.columns(2))
            spot = columns.pop(0).container(border=True)
        with spot:
            exhibit.show(source, figure, f"figure {' '.join(ids.values())} {place}")


def _tabs(
    chosen: summaries.Summary,
    result: Result,
    read: dict[str, Result],
    documents: dict[str, dict[str, Any]],
    names: dict[str, str],
) -> None:
    table, made, files, again = st.tabs(["Table", "What made it", "Files", "Run it again"])
    with table:
        _table(chosen, result)
    with made:
        for label, one in read.items():
            if len(read) > 1:
                st.subheader(label)
            _made(one.facts)
    with files:
        for id in documents:
            if len(documents) > 1:
                st.subheader(names[id])
            _files(_job(id))
    with again:
        for id, document in documents.items():
            if len(documents) > 1:
                st.subheader(names[id])
            st.code(writing.command(document), language="bash", wrap_lines=True)
            st.code(writing.as_yaml(document), language="yaml")
            widgets.go("Open this form in Studio", f"/studio/?tab=run&from={id}")


def _table(chosen: summaries.Summary, result: Result) -> None:
    if not result.table:
        st.info("This run measured nothing that fits a table.")
        return
    shown = comparison.columns(result.table)
    rows = [{name: row.get(name) for name in shown} for row in result.table]
    st.dataframe(pd.DataFrame(rows, columns=shown), hide_index=True, height=min(38 + 35 * len(rows), 420))
    st.download_button(
        "Download as CSV",
        lambda: widgets.as_csv(rows),
        f"{chosen.id}.csv",
        "text/csv",
        key=f"csv {chosen.id}",
        on_click="ignore",
    )


def _made(facts: dict[str, Any]) -> None:
    """The facts of a result; those with parts as tables of their own."""
    flat = {name: value for name, value in facts.items() if not isinstance(value, (dict, list)) and value not in (None, "")}
    parts = {name: value for name, value in facts.items() if isinstance(value, dict) and value}
    lists = {name: value for name, value in facts.items() if isinstance(value, list) and value and name != "notes"}
    for name in ("started", "ended"):
        if isinstance(flat.get(name), (int, float)):
            flat[name] = pd.Timestamp(flat[name], unit="s", tz="UTC").strftime("%Y-%m-%d %H:%M:%S UTC")
    blocks = [("Cost and place", flat), *((name.replace("_", " ").capitalize(), value) for name, value in parts.items())]
    columns = st.columns(3)
    for place, (title, values) in enumerate(blocks):
        with columns[place % 3]:
            st.markdown(f"**{title}**")
            frame = pd.DataFrame({"": [_said(value) for value in values.values()]}, index=[str(name) for name in values])
            st.dataframe(frame, height="content")
    for name, value in lists.items():
        st.markdown(f"**{name.replace('_', ' ').capitalize()}**")
        st.json(value, expanded=1)


def _said(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _files(job: Job) -> None:
    """What the run left beside its result."""
    folder = job.folder / "artifacts"
    found = (
        [file for file in sorted(folder.rglob("*")) if file.is_file() and not file.is_symlink()] if folder.exists() else []
    )
    found += [file for file in (job.result_file, job.log_file) if file.exists()]
    for file in found:
        name, size = str(file.relative_to(job.folder)), file.stat().st_size
        left, right = st.columns([5, 1], vertical_alignment="center")
        left.markdown(
            f"`{name}`  \n{_size(size)}" + ("" if size <= LARGEST_FILE else f" · too large to send; it is at `{file}`")
        )
        if size <= LARGEST_FILE:
            right.download_button("Download", _reader(file), file.name, key=f"file {job.id} {name}", on_click="ignore")


def _reader(file: Path) -> Callable[[], bytes]:
    return lambda: file.read_bytes()


def _size(size: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
