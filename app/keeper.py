"""What a server starts and ends beside the pages: the queue, the warm process, and the sweeping of old uploads."""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from engine.settings import settings

HOUR = 3_600
DAY = 86_400
_GRACE = 20.0  # seconds for running jobs to save; the queue itself gives each of them ten
_LONGEST_PAUSE = 10.0

log = logging.getLogger("auscult.server")


class Keeper:
    """Keeps the queue running and the warm process warm, and ends both."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._queue: subprocess.Popen[bytes] | None = None
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin at once, beside the slow imports of the pages."""
        for work in (self._warm, self._keep_queue, self._keep_clean):
            thread = threading.Thread(target=self._guard, args=(work,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            log.exception("%s ended", work.__name__)

    def _warm(self) -> None:
        from app import workbench

        workbench.live().warm()

    def _keep_queue(self) -> None:
        from app import workbench

        pause = 1.0
        while not self._stopping.is_set():
            since = time.monotonic()
            with (settings().workspace / "queue.log").open("ab") as output:
                # A session of its own: Ctrl-C in the terminal reaches this server only, which then asks the queue to stop.
                self._queue = subprocess.Popen(
                    [*workbench.COMMAND, "queue"],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            code = self._queue.wait()
            # One that ends at once found another queue at work, or cannot start: asking again in a hurry helps neither.
            pause = 1.0 if time.monotonic() - since > 30 else min(pause * 2, _LONGEST_PAUSE)
            log.info("the queue ended with %s; looking again in %s s", code, pause)
            self._stopping.wait(pause)

    def _keep_clean(self) -> None:
        while not self._stopping.wait(HOUR):
            sweep(settings().uploads, DAY)

    def stop(self) -> None:
        """End what was started, and wait until it has ended."""
        self._stopping.set()
        queue = self._queue
        if queue is not None and queue.poll() is None:
            queue.terminate()
            try:
                queue.wait(_GRACE)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(queue.pid, signal.SIGKILL)
        from app import workbench

        workbench.live().close()


def sweep(folder: Path, seconds: float) -> None:
    """Delete what was uploaded longer ago than that."""
    limit = time.time() - seconds
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in files:
            with suppress(OSError):
                if os.lstat(file := os.path.join(parent, name)).st_mtime < limit:
                    os.unlink(file)
        for name in folders:
            with suppress(OSError):
                os.rmdir(os.path.join(parent, name))  # only an empty one goes
