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

from engine.settings import HOUSE, settings

HOUR = 3_600
DAY = 86_400
_GRACE = 20.0  # seconds for running jobs to save; the queue itself gives each of them ten
_LONGEST_PAUSE = 10.0

log = logging.getLogger("auscult.server")


class Keeper:
    """Keeps the queue running and the warm process warm, and ends both."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # held while a queue is started, so that none starts after the end
        self._queue: subprocess.Popen[bytes] | None = None

    def warm(self) -> None:
        """Start the warm process, to load what it needs beside the slow imports of the pages."""
        from app import workbench

        workbench.live().warm()

    def keep(self) -> None:
        """Start the queue and all that goes on as long as the server does."""
        for work in (self._keep_queue, self._keep_clean):
            threading.Thread(target=self._guard, args=(work,), daemon=True).start()

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            log.exception("%s ended", work.__name__)

    def _keep_queue(self) -> None:
        from app import workbench

        pause = 1.0
        while True:
            since = time.monotonic()
            with self._lock, (settings().workspace / "queue.log").open("ab") as output:
                if self._stopping.is_set():
                    return
                # A session of its own: Ctrl-C in the terminal reaches this server only, which then asks the queue to stop.
                self._queue = subprocess.Popen(
                    [*workbench.COMMAND, "queue"],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    cwd=HOUSE,
                )
            code = self._queue.wait()
            # One that ends at once found another queue at work, or cannot start: asking again in a hurry helps neither.
            pause = 1.0 if time.monotonic() - since > 30 else min(pause * 2, _LONGEST_PAUSE)
            if self._stopping.wait(pause):
                return
            log.info("The queue had ended with %s; another one starts.", code)

    def _keep_clean(self) -> None:
        while not self._stopping.wait(HOUR):
            sweep(settings().uploads, DAY)

    def stop(self) -> None:
        """End what was started, and wait until it has ended."""
        with self._lock:
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
