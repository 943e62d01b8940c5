"""The command line. Every verb imports what it needs when it is asked for, so that help comes at once."""

import json
import os
import sys
import threading
import time
import traceback
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from app import terminal
from app.terminal import complain, say
from app.verbs import ABOUT, SERVING, VERBS
from engine.errors import AuscultError, explain
from engine.settings import allow_own_code, settings

if TYPE_CHECKING:
    from engine.job import Job

USAGE = 2
ALREADY_SERVED = 3

cli = typer.Typer(help=ABOUT, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

Host = Annotated[str, typer.Option(help=SERVING["--host"][1], show_default=False)]
Port = Annotated[int, typer.Option(help=SERVING["--port"][1], show_default=False, min=1, max=65_535)]
Token = Annotated[
    str, typer.Option(help=SERVING["--token"][1], envvar="AUSCULT_TOKEN", show_envvar=False, show_default=False)
]
NoBrowser = Annotated[bool, typer.Option("--no-browser", help=SERVING["--no-browser"][1])]
Pairs = Annotated[
    list[str] | None, typer.Argument(metavar="[key=value ...]", help="Settings of the run, as YAML writes them.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@cli.callback(invoke_without_command=True)
def start(
    context: typer.Context, host: Host = "127.0.0.1", port: Port = 7860, token: Token = "", no_browser: NoBrowser = False
) -> None:
    allow_own_code(False)  # the server, its pages and the warm process never have it, whatever the environment says
    if context.invoked_subcommand is None:
        _serve(host, port, token, "/", no_browser)


@cli.command(help=VERBS["studio"][1])
def studio(host: Host = "127.0.0.1", port: Port = 7860, token: Token = "", no_browser: NoBrowser = False) -> None:
    _serve(host, port, token, "/studio/", no_browser)


@cli.command(help=VERBS["board"][1])
def board(host: Host = "127.0.0.1", port: Port = 7860, token: Token = "", no_browser: NoBrowser = False) -> None:
    _serve(host, port, token, "/board/", no_browser)


def _serve(host: str, port: int, token: str, page: str, no_browser: bool) -> None:
    from app import server

    if not server.is_local(host) and not token:
        complain(f"--host {host} opens Auscult to other machines: give it a token with --token WORD or AUSCULT_TOKEN.")
        raise typer.Exit(USAGE)
    os.environ.pop("AUSCULT_TOKEN", None)  # no run that is started from here needs to know it
    try:
        server.serve(host, port, token, page=page, browser=not no_browser, say=say)
    except server.AlreadyServed as error:
        complain(str(error))
        raise typer.Exit(ALREADY_SERVED) from None


@cli.command(help=VERBS["run"][1])
def run(name: Annotated[str, typer.Argument(metavar="NAME|FILE")], pairs: Pairs = None, as_json: Json = False) -> None:
    from app import workbench

    allow_own_code(True)
    job = _carry_out(workbench.document(name, _values(pairs)))
    say(job.result_file.read_text("utf-8") if as_json else str(job.result_file))


@cli.command(help=VERBS["preflight"][1])
def preflight(name: Annotated[str, typer.Argument(metavar="NAME|FILE")], pairs: Pairs = None, as_json: Json = False) -> None:
    from app import workbench

    allow_own_code(True)
    training = workbench.resolve(workbench.document(name, _values(pairs)))
    job = _carry_out({"run": "preflight", "training": json.dumps(training.document)})
    if as_json:
        say(job.result_file.read_text("utf-8"))
        return
    for line in job.result().table:
        say(f"{line['what']}: {line['value']:.4g} {line['unit']}".rstrip())
    for sentence in job.result().facts["advice"]:
        say(sentence)
    say(str(job.result_file))


def _carry_out(document: dict[str, Any]) -> "Job":
    """Run it here and now, telling how far it is; a run that does not end well ends this program."""
    from app import workbench
    from engine import worker
    from engine.job import INLINE

    job = workbench.submit(document, executor=INLINE)
    over = threading.Event()
    watcher = threading.Thread(target=terminal.show_progress, args=(job.folder, over.wait), daemon=True)
    watcher.start()
    try:
        code = worker.work(job, workbench.resolve, workbench.COMMAND)
    finally:
        over.set()
        watcher.join()
    if code == worker.CANCELLED:
        complain(f"Stopped. 'python launch.py jobs {job.id} --resume' goes on with it.")
        raise typer.Exit(code)
    if code != worker.FINISHED:
        complain(f"{job.status().reason} The log is {job.log_file}.")
        raise typer.Exit(code)
    terminal.tell_cost(job.result().facts)
    return job


@cli.command(help=VERBS["submit"][1])
def submit(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE")],
    pairs: Pairs = None,
    priority: Annotated[int, typer.Option(help="Higher goes first.")] = 0,
    executor: Annotated[str, typer.Option(help="Where it runs; 'list executors' shows what there is.")] = "process",
) -> None:
    from app import workbench
    from engine import queue
    from engine.job import EXECUTORS, INLINE

    EXECUTORS.get(executor)
    if executor == INLINE:
        raise typer.BadParameter("A job of the inline executor runs where it was started; 'run' does that.")
    allow_own_code(True)
    job = workbench.submit(workbench.document(name, _values(pairs)), priority=priority, executor=executor)
    queue.ensure(workbench.COMMAND)
    say(job.id)


def _values(pairs: list[str] | None) -> dict[str, Any]:
    """What `key=value ...` means."""
    import yaml

    values: dict[str, Any] = {}
    for text in pairs or []:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise typer.BadParameter(f"'{text}' is not of the form key=value.")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise typer.BadParameter(f"The value of {key} is not readable: {value}") from error
    return values


@cli.command(help=VERBS["jobs"][1])
def jobs(
    id: Annotated[str, typer.Argument(metavar="[ID]", help="A job, or the beginning of its id.")] = "",
    follow: Annotated[bool, typer.Option("--follow", help="Show its progress until it is over.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Ask it to save and stop.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Put it back in the queue; it goes on where it was.")] = False,
    logs: Annotated[bool, typer.Option("--logs", help="Print the end of its log.")] = False,
) -> None:
    from engine.job import JobStore

    if sum([follow, cancel, resume, logs]) > 1:
        raise typer.BadParameter("Only one of --follow, --cancel, --resume and --logs can be given.")
    if not id:
        if follow or cancel or resume or logs:
            raise typer.BadParameter("Give the ID of a job.")
        terminal.list_jobs()
        return
    job = JobStore().get(id)
    if cancel:
        job.cancel()
        say(f"{job.id} was asked to stop." if not job.status().state.is_over else f"{job.id} is {job.status().state}.")
    elif resume:
        from app import workbench
        from engine import queue

        job.resume()
        queue.ensure(workbench.COMMAND)
        say(f"{job.id} is in the queue again.")
    elif logs:
        say(job.log())
    elif follow:
        try:
            raise typer.Exit(0 if terminal.follow(job) else 1)
        except KeyboardInterrupt:
            complain("The job goes on.")
    else:
        terminal.describe(job)


Kind = Literal["upstreams", "corpora", "runs", "executors", "recipes"]


@cli.command(name="list", help=VERBS["list"][1])
def list_(kind: Kind, as_json: Json = False) -> None:
    from app import workbench

    rows = [_card(card) for card in workbench.upstreams()] if kind == "upstreams" and as_json else _rows(kind)
    if as_json:
        say(json.dumps(rows, ensure_ascii=False, indent=1))
    else:
        columns = list(rows[0]) if rows else []
        terminal.print_table(
            columns, [[str(value) for value in row.values()] for row in rows], nothing=f"There are no {kind}."
        )
    for file in workbench.broken():
        complain(f"{file.file} could not be read and is left out: {file.error}")


def _rows(kind: Kind) -> list[dict[str, Any]]:
    from app import workbench
    from engine.job import EXECUTORS

    if kind == "upstreams":
        return [
            {
                "name": card.name,
                "layers": card.layers,
                "dims": card.dims[-1],
                "hop_ms": round(card.hop_seconds * 1000, 3),
                "here": card.here,
                "license": card.license or "not known",
                "about": card.about,
            }
            for card in workbench.upstreams()
        ]
    if kind == "corpora":
        return [{"name": name} for name in workbench.corpora()]
    if kind == "executors":
        return [{"name": name, "can_run_here": executor.affinity() >= 0} for name, executor in EXECUTORS.classes().items()]
    if kind == "recipes":
        return [
            {"name": recipe.name, "run": recipe.document["run"], "about": recipe.about} for recipe in workbench.recipes()
        ]
    return [
        {"name": name, "family": family, "about": (run.__doc__ or "").strip().split("\n")[0]}
        for family, registry in workbench.FAMILIES.items()
        for name, run in registry.classes().items()
    ]


def _card(card: Any) -> dict[str, Any]:
    """Everything that a card tells, as plain JSON."""
    told = {field.name: getattr(card, field.name) for field in fields(card)}
    taps = [asdict(tap) for tap in told.pop("taps")]
    return {**{name: value for name, value in told.items() if not callable(value) and value is not None}, "taps": taps}


@cli.command(help=VERBS["layers"][1])
def layers(
    upstream: Annotated[str, typer.Argument(metavar="UPSTREAM")],
    audio: Annotated[list[Path], typer.Argument(metavar="AUDIO...")],
    out: Annotated[Path | None, typer.Option(metavar="FILE.npz", help="Write the arrays too.")] = None,
    taps: Annotated[str, typer.Option(metavar="NAME,...|all", help="What it shows besides: conv1, codes ...")] = "",
    as_json: Json = False,
) -> None:
    from app import layers as asked

    allow_own_code(True)
    shown = asked.layers(upstream, audio, out, [tap for tap in taps.split(",") if tap])
    if as_json:
        for one in shown:
            say(json.dumps(asdict(one) if isinstance(one, asked.Shown) else {"note": one}))
        return
    for line in asked.said(shown):
        say(line)
    if out is not None:
        say(f"Written to {out}.")


@cli.command(help=VERBS["export"][1])
def export(
    upstream: Annotated[str, typer.Argument(metavar="UPSTREAM")], folder: Annotated[Path, typer.Argument(metavar="FOLDER")]
) -> None:
    from engine.export import export as write

    allow_own_code(True)
    say(f"transformers.{write(upstream, folder)}.from_pretrained('{folder}') reads it.")


@cli.command(help=VERBS["check"][1])
def check() -> None:
    from app.checks import check

    raise typer.Exit(1 if check(say) else 0)


@cli.command(help=VERBS["test"][1], context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def test(words: Annotated[list[str] | None, typer.Argument(metavar="[PYTEST OPTIONS]")] = None) -> None:
    from app.checks import test

    raise typer.Exit(test(words or [], say))


@cli.command(help=VERBS["doctor"][1])
def doctor(as_json: Json = False) -> None:
    from app.doctor import examine

    findings = examine()
    if as_json:
        say(json.dumps([finding.document for finding in findings], ensure_ascii=False, indent=1))
    else:
        for finding in findings:
            say(str(finding))
    raise typer.Exit(1 if any(finding.is_wrong for finding in findings) else 0)


@cli.command(hidden=True)
def worker(folder: Path) -> None:
    """Work on one job folder."""
    from app import workbench
    from engine.job import Job
    from engine.worker import work

    job = Job(folder)
    allow_own_code(job.status().own_code)
    raise typer.Exit(work(job, workbench.resolve, workbench.COMMAND))


@cli.command(hidden=True)
def queue() -> None:
    """Serve the jobs of this workspace until there was nothing to do for ten minutes."""
    import logging

    from engine.job import JobStore
    from engine.queue import serve

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    serve(JobStore(), [sys.executable, "-m", "app.cli"], idle_seconds=600.0)


@cli.command(hidden=True)
def live() -> None:
    """Answer the pages' questions on standard input."""
    from app import workbench
    from engine.live import serve
    from engine.spare import Spare
    from probing.stats import layouts

    serve(workbench.resolve, Spare([*workbench.COMMAND, "compile"], layouts.warm))


@cli.command(hidden=True, name="compile")
def compile_layouts() -> None:
    """Compile what a first UMAP would wait for, giving way to everything else; it stays on disk."""
    from probing.stats import layouts

    os.nice(19)
    layouts.warm()


def main() -> None:
    """Run the command line; whatever goes wrong is said in one sentence."""
    try:
        cli(prog_name="python launch.py")
    except AuscultError as error:
        complain(str(error))
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader of our output has gone
        sys.exit(1)
    except Exception as error:
        complain(f"{explain(error)} It is at {_keep_traceback()}.")
        sys.exit(1)


def _keep_traceback() -> Path:
    file = settings().workspace / "errors.log"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as handle:
        handle.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {sys.argv[1:]}\n{traceback.format_exc()}\n")
    return file


if __name__ == "__main__":
    main()
