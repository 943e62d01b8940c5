"""Studio / Run: everything that can be started, each as a form made from its class."""

import inspect
import time
from collections.abc import Callable
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from app import forms, summaries, workbench, writing
from app.studio import fields, parts, widgets
from engine.errors import AuscultError
from engine.run import RunSpec

TITLE = "Run"
ORDER = 20

# Those that have a form here; errands are sent by the pages that they belong to.
FAMILIES = {"analysis": "Analyses", "pretext": "Pretraining", "task": "Downstream tasks", "suite": "Benchmarks"}
EMPTY: dict[str, Any] = {"run": "", "values": {}}
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

_SETTLE = """() => {
    if (new URLSearchParams(location.search).get('tab') === 'run') history.replaceState(null, '', '?tab=run');
}"""


def build() -> None:
    """The page: what there is on the left, the form in the middle, what it means and the way into the queue on the right."""
    kept = parts.memory("auscult-run", EMPTY)
    drawn = gr.State({"run": "", "values": {}, "said": "", "turn": 0})
    with gr.Row(elem_classes="au-run", equal_height=False):
        with gr.Column(scale=2, min_width=210, elem_classes="au-run-menu"):
            menu = parts.menu()
            faults = gr.HTML(visible=False, apply_default_css=False)
        with gr.Column(scale=9, min_width=560):
            gr.render(inputs=drawn, triggers=[drawn.change], queue=False, show_progress="hidden")(
                partial(_draw, kept, drawn)
            )
    # These two go through the queue because only there does Gradio tell that a State has changed.
    wiring = {"outputs": [drawn, menu, faults, kept], **QUIET, "queue": True, "concurrency_limit": None}
    # What the address asked for is in the form now, and in the browser's memory: a reload must not ask for it again.
    widgets.on_open(_open, inputs=kept, **wiring).then(None, js=_SETTLE)
    menu.pick(_pick, inputs=kept, **wiring)


def _open(kept: Any, request: gr.Request) -> tuple[Any, ...]:
    """What a browser sees first: what its address asks for, else what it had, else the first run there is."""
    asked = dict(request.query_params)
    if asked.get("tab") == "run":
        found = _asked(asked, _kept(kept)["values"])
        if found is not None:
            return _show(kept, *found)
    return _show(kept, _kept(kept)["run"])


def _asked(asked: dict[str, str], kept: dict[str, Any]) -> tuple[str, dict[str, Any] | None, str] | None:
    """The run, its settings and a sentence about them, as an address asks for them; `kept` are those of each run."""
    if "from" in asked:
        job = summaries.find(asked["from"])
        if job is None:
            return "", None, "The job whose settings were asked for is not there any more."
        document = dict(job.document)
        return (
            str(document.pop("run", "")),
            document,
            f"These are the settings of job {job.id}. Change what you like and add it.",
        )
    if "recipe" in asked:
        try:
            recipes = {recipe.name: recipe for recipe in workbench.recipes()}
        except AuscultError as error:
            return "", None, str(error)
        if asked["recipe"] not in recipes:
            return "", None, "There is no recipe of that name here."
        document = dict(recipes[asked["recipe"]].document)
        return str(document.pop("run", "")), document, f"These are the settings of the recipe {asked['recipe']}."
    if "run" not in asked:
        return None
    if "upstream" not in asked:
        return asked["run"], None, ""
    before = kept.get(asked["run"])
    kind = workbench.runs().get(asked["run"])
    one = (
        {"upstreams": [asked["upstream"]]} if kind and "upstreams" in kind.model_fields else {"upstream": asked["upstream"]}
    )
    return asked["run"], {**(before if isinstance(before, dict) else {}), **one}, ""


def _pick(kept: Any, event: gr.EventData) -> tuple[Any, ...]:
    return _show(kept, str(event._data.get("run", "")))


def _kept(kept: Any) -> dict[str, Any]:
    """What the browser remembered, as far as it makes sense."""
    if not isinstance(kept, dict) or not isinstance(kept.get("values"), dict):
        return {"run": "", "values": {}}
    return {"run": str(kept.get("run", "")), "values": dict(kept["values"])}


def _show(kept: Any, run: str, values: dict[str, Any] | None = None, said: str = "") -> tuple[Any, ...]:
    """Draw the form of a run: with these values, else with what this browser last wrote into it."""
    memory = _kept(kept)
    known = workbench.runs()
    if run and run not in known:
        said = f"There is no run called '{run}' here any more, so its settings cannot be shown."
    if run not in known:
        run = next((name for family in workbench.FAMILIES.values() for name in sorted(family.classes())), "")
        values = None
    if values is not None:
        memory["values"][run] = values
    memory["run"] = run
    filled = memory["values"].get(run)
    state = {"run": run, "values": filled if isinstance(filled, dict) else {}, "said": said, "turn": time.time_ns()}
    return state, _menu(run), _faults(), memory


def _menu(chosen: str) -> dict[str, Any]:
    families: list[dict[str, Any]] = []
    for family, title in FAMILIES.items():
        kinds = sorted(workbench.FAMILIES[family].classes().items(), key=lambda item: item[1].title().casefold())
        runs = [{"name": name, "title": kind.title(), "about": _about(kind)[0]} for name, kind in kinds]
        if runs:
            families.append({"title": title, "runs": runs})
    return {"families": families, "chosen": chosen}


def _about(kind: type[RunSpec]) -> tuple[str, str]:
    """The first paragraph of a class's docstring, and the rest."""
    first, _, rest = inspect.cleandoc(kind.__doc__ or "").partition("\n\n")
    return " ".join(first.split()), rest.strip()


def _faults() -> Any:
    """The extension files that could not be read, with the reason."""
    broken = workbench.broken()
    if not broken:
        return gr.HTML(visible=False)
    lines = "".join(f"<li><b>{escape(one.file.name)}</b><span>{escape(one.error)}</span></li>" for one in broken)
    files = "file" if len(broken) == 1 else "files"
    return gr.HTML(
        f'<details class="au-faults"><summary>{len(broken)} extension {files} could not be read</summary>'
        f"<ul>{lines}</ul></details>",
        visible=True,
    )


def _draw(kept: gr.BrowserState, drawn: gr.State, state: dict[str, Any]) -> None:
    """The form of one run and what stands beside it."""
    kind = workbench.runs().get(state["run"])
    if kind is None:
        widgets.refusal("Nothing to run yet", "There is no run in this installation. Put one into workspace/extensions.")
        return
    try:
        form = forms.fields(kind)
    except AuscultError as error:
        widgets.refusal(f"{kind.title()} has no form", str(error))
        return
    values = {one.name: forms.widget_value(one, state["values"].get(one.name, one.default)) for one in form}
    judged = _judge(kind, values)
    parts_of: dict[str, tuple[gr.Column, Any, gr.HTML]] = {}
    with gr.Row(equal_height=False, elem_classes="au-run-sheet"):
        with gr.Column(scale=5, min_width=320, elem_classes="au-run-form"):
            with gr.Row(elem_classes="au-run-top", equal_height=False):
                gr.HTML(_title(kind), apply_default_css=False, elem_classes="au-run-head")
                clear = gr.Button("Back to defaults", size="sm", scale=0, min_width=130, elem_id="run-defaults")
            presets = {recipe.name: recipe for recipe in forms.presets(kind)}
            preset = gr.Dropdown(
                [(_preset_label(recipe), name) for name, recipe in presets.items()],
                value=None,
                label="Start from a preset",
                visible=bool(presets),
                elem_id="run-preset",
            )
            if state["said"]:
                gr.HTML(parts.notice("plain", state["said"], []), apply_default_css=False)
            with gr.Column(elem_classes="au-grid"):
                for one in form:
                    if not one.advanced:
                        parts_of[one.name] = fields.draw(one, values, judged)
            if any(one.advanced for one in form):
                wrong = any(one.advanced and one.name in judged["errors"] for one in form)
                with gr.Accordion("More settings", open=wrong), gr.Column(elem_classes="au-grid"):
                    for one in form:
                        if one.advanced:
                            parts_of[one.name] = fields.draw(one, values, judged)
        with gr.Column(scale=4, min_width=300, elem_classes="au-run-side"):
            notice = gr.HTML(judged["notice"], apply_default_css=False, elem_id="run-notice")
            with gr.Row(elem_classes="au-add", equal_height=True):
                add = gr.Button("Add to queue", variant="primary", scale=3, min_width=140, elem_id="run-add")
                attempt = gr.Button(
                    "Try first", scale=2, min_width=100, visible=kind.family == "pretext", elem_id="run-preflight"
                )
                priority = gr.Number(
                    0,
                    label="Priority",
                    precision=0,
                    scale=1,
                    min_width=110,
                    elem_classes="au-inline",
                    elem_id="run-priority",
                )
            command = gr.Code(
                judged["command"],
                language="shell",
                label="The same from a shell",
                interactive=False,
                lines=1,
                wrap_lines=True,
                show_line_numbers=False,
                buttons=["copy"],
                elem_id="run-command",
            )
            text = gr.Code(
                judged["yaml"],
                language="yaml",
                label="The same as a file",
                interactive=False,
                lines=1,
                max_lines=14,
                wrap_lines=True,
                show_line_numbers=False,
                buttons=["copy", "download"],
                elem_id="run-yaml",
            )
    boxes = [parts_of[one.name][1] for one in form]
    outputs = [
        *(parts_of[one.name][0] for one in form),
        *(parts_of[one.name][2] for one in form),
        *(parts_of[one.name][1] for one in form if fields.follows(one)),
        notice,
        command,
        text,
        kept,
    ]
    # Raw values: what the widgets hold is judged by the class, so that a wrong one is told at its field and not in a toast.
    raw = {**QUIET, "preprocess": False}
    gr.on(
        [fields.told(one, box) for one, box in zip(form, boxes, strict=True)],
        partial(_edit, kind, form),
        [*boxes, kept],
        outputs,
        trigger_mode="always_last",
        **raw,
    )
    for button, send in ((add, _add), (attempt, _attempt)):
        button.click(partial(send, kind, form), [*boxes, kept, priority], outputs, trigger_mode="once", **raw)
    anew = {**raw, "queue": True, "concurrency_limit": None}
    preset.input(partial(_fill, kind, presets), [preset, kept], [drawn, kept], **anew)
    clear.click(partial(_fill, kind, presets, None), kept, [drawn, kept], **anew)


def _title(kind: type[RunSpec]) -> str:
    first, rest = _about(kind)
    more = f"<details><summary>More about it</summary><p>{escape(rest)}</p></details>" if rest else ""
    return f"<h2>{escape(kind.title())}</h2><p>{escape(first)}</p>{more}"


def _preset_label(recipe: workbench.Recipe) -> str:
    return f"{recipe.name}: {recipe.about}" if recipe.about else recipe.name


def _judge(kind: type[RunSpec], values: dict[str, Any]) -> dict[str, Any]:
    """Everything the page says about a filled-in form."""
    errors = forms.errors(kind, values)
    document = forms.full(kind, values)
    reasons = [] if errors else _reasons(kind, document)
    form = forms.fields(kind)
    shown = forms.shown(form, forms.read(form, values))
    if errors:
        places = [one.label for one in form if one.name in errors]
        said = [f"Look at: {', '.join(places)}."] if places else []
        said += [sentence for name, sentence in errors.items() if name not in {one.name for one in form}]
        notice = parts.notice("bad", "Something in the form needs attention", said)
    elif reasons:
        notice = parts.notice("wait", "It cannot run here yet", reasons)
    else:
        notice = parts.notice("plain", "Ready to run", [_weight(kind)])
    command, text = writing.command(document), writing.as_yaml(document)
    return {
        "errors": errors,
        "shown": shown,
        "notice": notice,
        "command": command,
        "yaml": text,
        "ready": not errors and not reasons,
    }


def _weight(kind: type[RunSpec]) -> str:
    if kind.slots == 0:
        return "It starts other runs and waits for them."
    return (
        "It takes one place of the queue while it runs."
        if kind.slots == 1
        else f"It takes {kind.slots} places of the queue."
    )


def _reasons(kind: type[RunSpec], document: dict[str, Any]) -> list[str]:
    try:
        return workbench.resolve(document).needs()
    except AuscultError as error:
        return [str(error)]
    except Exception as error:  # an extension's own check that fails must not take the page with it
        return [f"{kind.title()} could not check whether it can run here ({type(error).__name__}: {error})."]


def _outputs(
    form: list[forms.Field], judged: dict[str, Any], values: dict[str, Any], before: dict[str, Any], kept: Any
) -> list[Any]:
    errors = judged["errors"]
    moved = any(values.get(name) != before.get(name) for name in ("corpus", "unit"))
    return [
        *(gr.Column(visible=one.name in judged["shown"]) for one in form),
        *(gr.HTML(fields.wrong(errors.get(one.name, "")), visible=one.name in errors) for one in form),
        *(gr.Dropdown(choices=fields.offered(one, values)) if moved else gr.skip() for one in form if fields.follows(one)),
        judged["notice"],
        judged["command"],
        judged["yaml"],
        kept,
    ]


def _before(kind: type[RunSpec], kept: Any) -> dict[str, Any]:
    """What the form held before."""
    values = _kept(kept)["values"].get(kind.name)
    return values if isinstance(values, dict) else {}


def _remember(kind: type[RunSpec], kept: Any, values: dict[str, Any]) -> dict[str, Any]:
    memory = _kept(kept)
    memory["run"] = kind.name
    memory["values"][kind.name] = values
    return memory


def _edit(kind: type[RunSpec], form: list[forms.Field], *given: Any) -> list[Any]:
    """A field was changed."""
    values = dict(zip((one.name for one in form), given, strict=False))
    kept = given[len(form)]
    return _outputs(form, _judge(kind, values), values, _before(kind, kept), _remember(kind, kept, values))


def _add(kind: type[RunSpec], form: list[forms.Field], *given: Any) -> list[Any]:
    """The form goes into the queue, or says why it does not."""
    said = "Added to the queue", "Its job is {}.", "It was not added to the queue"
    return _send(kind, form, given, lambda document: document, said)


def _attempt(kind: type[RunSpec], form: list[forms.Field], *given: Any) -> list[Any]:
    """The first batch of the training is tried, as a job of its own."""
    said = (
        "Its first batch is being tried",
        "Job {} tells memory, time and disk, and plays what the model will hear.",
        "It was not tried",
    )
    return _send(kind, form, given, lambda document: {"run": "preflight", "training": writing.as_yaml(document)}, said)


def _send(
    kind: type[RunSpec],
    form: list[forms.Field],
    given: tuple[Any, ...],
    meant: Callable[[dict[str, Any]], dict[str, Any]],
    said: tuple[str, str, str],
) -> list[Any]:
    """Put what the form means into the queue. `said`: headline and sentence (with the job) if it went, headline if not."""
    values = dict(zip((one.name for one in form), given, strict=False))
    priority = given[len(form) + 1]
    judged = _judge(kind, values)
    if judged["ready"]:
        try:
            job = workbench.submit(meant(forms.document(kind, values)), priority=int(priority or 0))
            link = (f"/studio/?tab=jobs&job={job.id}", "Watch it in Jobs")
            judged["notice"] = parts.notice("good", said[0], [said[1].format(job.id)], link)
        except (AuscultError, OSError) as error:
            judged["notice"] = parts.notice("bad", said[2], [str(error)])
    kept = given[len(form)]
    return _outputs(form, judged, values, _before(kind, kept), _remember(kind, kept, values))


def _fill(kind: type[RunSpec], presets: dict[str, workbench.Recipe], name: Any, kept: Any) -> tuple[Any, Any]:
    """Draw the form anew with a preset's settings, or with the defaults."""
    recipe = presets.get(str(name))
    values = {key: value for key, value in recipe.document.items() if key != "run"} if recipe else {}
    said = f"Filled from the preset {recipe.name}." if recipe else ""
    state = {"run": kind.name, "values": values, "said": said, "turn": time.time_ns()}
    return state, _remember(kind, kept, values)
