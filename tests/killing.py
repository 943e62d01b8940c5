"""Trains a pretext and kills it again and again, with -9 at random moments, until each training has come to its end.

`python tests/killing.py FOLDER KILLS SPEC` writes FOLDER/whole, an undisturbed run, and FOLDER/torn-0, torn-1 ...; each is
resumed after every kill. The processes are forks of one that has imported everything, so that they begin at once.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any


def main(folder: Path, kills: int, document: dict[str, Any]) -> None:
    began = time.monotonic()
    assert _attempt(folder / "whole", document, 600.0)
    took = time.monotonic() - began
    draw, done, number = random.Random(kills), 0, 0
    while done < kills:
        while done < kills and not _attempt(folder / f"torn-{number}", document, draw.uniform(0.05, 0.8 * took)):
            done += 1
        assert _attempt(folder / f"torn-{number}", document, 600.0)
        number += 1


def _attempt(folder: Path, document: dict[str, Any], seconds: float) -> bool:
    """Work on the training for at most so long; whether it came to its end."""
    folder.mkdir(exist_ok=True)
    child = os.fork()
    if not child:
        _train(folder, document)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0, f"the training failed with {status}"
            return True
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return (folder / "result.json").exists()


def _train(folder: Path, document: dict[str, Any]) -> None:
    if not (folder / "result.json").exists():
        workbench.resolve(document).run(Context(folder, device="cpu")).save(folder / "result.json")
    os._exit(0)


if __name__ == "__main__":
    import accelerate  # noqa: F401  # not by the children, each anew
    import safetensors.torch  # noqa: F401

    from app import workbench
    from engine.run import Context

    workbench.runs()
    main(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
