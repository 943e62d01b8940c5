"""What can be asked for on the command line, in one place that costs nothing to read: no .venv is needed for it."""

ABOUT = "Auscult, a stethoscope for speech models."

# verb: (how it is written, what it does in one line)
VERBS = {
    "": ("", "Serve Studio and Board, and open the browser."),
    "studio": ("studio", "The same, opening Studio: listen, run, watch jobs."),
    "board": ("board", "The same, opening Board: jobs and results."),
    "run": ("run NAME|FILE [key=value ...]", "Run an analysis, pretext, task, suite or recipe here and now."),
    "preflight": (
        "preflight NAME|FILE [key=value ...]",
        "Try a training's first batch: memory, time and disk of the whole.",
    ),
    "submit": ("submit NAME|FILE [key=value ...]", "Put a run in the queue and print its job id."),
    "jobs": ("jobs [ID]", "List the jobs, or show, follow, cancel or resume one."),
    "list": ("list upstreams|corpora|runs|executors|recipes", "What there is to choose from."),
    "layers": ("layers UPSTREAM AUDIO... [--out FILE.npz]", "Name, and write, every layer of an upstream for some sounds."),
    "export": ("export UPSTREAM FOLDER", "Write an upstream as transformers reads it: wav2vec 2.0, HuBERT and their kin."),
    "check": ("check", "Format, lint, types and import rules."),
    "test": ("test", "Every test, those in the browser included."),
    "doctor": ("doctor", "Say what this installation has and lacks, and what to do about it."),
}

# Options of the server, which is what runs when no verb is given: (how it is written, what it does)
SERVING = {
    "--host": ("--host ADDRESS", "Where to listen; anything but this machine itself needs a token. [127.0.0.1]"),
    "--port": ("--port NUMBER", "The first port to try; the next free one is taken. [7860]"),
    "--token": ("--token WORD", "Ask every browser for this word. Better given as AUSCULT_TOKEN, which others cannot read."),
    "--no-browser": ("--no-browser", "Do not open a browser."),
}


def help_text(command: str) -> str:
    """The help of the whole command line."""
    verbs = [row for verb, row in VERBS.items() if verb]
    width = max(len(written) for written, _ in (*verbs, *SERVING.values())) + 2
    lines = [ABOUT, "", f"  {command} [VERB] [OPTIONS]", "", f"Without a verb: {VERBS[''][1]}", ""]
    lines += [f"  {written:<{width}}{said}" for written, said in SERVING.values()]
    lines += ["", "Verbs (each has --help):", ""]
    lines += [f"  {written:<{width}}{said}" for written, said in verbs]
    return "\n".join(lines)
