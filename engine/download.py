"""Fetches files from addresses: goes on where it broke off, tries again where that helps, and takes nothing damaged."""

import contextlib
import errno
import fcntl
import hashlib
import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from engine.errors import Unavailable
from engine.settings import settings

T = TypeVar("T")
Progress = Callable[[float, float], None]  # bytes done, of how many; may raise, to stop

PAUSES = (1.0, 4.0, 15.0)  # seconds before it is tried again; a server may ask for longer ones, up to the limit
LONGEST_PAUSE = 60.0
PATIENCE = 30.0  # seconds without a byte
BLOCK = 2**20


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it is fetched; nothing of it need be."""

    size: int = 0
    sha256: str = ""
    blob: str = ""  # the hash that git gives a file of these bytes


class Denied(Unavailable):
    """A server's answer that is not the file."""

    def __init__(self, address: str, status: int, code: str) -> None:
        super().__init__(f"{address} answered {status}, so it could not be fetched.")
        self.status = status
        self.code = code  # what the hub calls it


class _Again(Exception):
    """It did not work and may work later."""

    def __init__(self, failure: Unavailable, pause: float = 0.0) -> None:
        self.failure = failure
        self.pause = pause  # that the server asks for


def fetch(address: str, file: Path, progress: Progress, expected: Expected | None = None, token: str = "") -> None:
    """Bring what lies at an address into a file, saying how many bytes are done of how many; a file that is here stays."""
    expected = expected or Expected()
    ask_only_online(file.name)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = _Part(file)
    with _alone(file, lambda: progress(part.size, max(part.size, expected.size))):
        if file.exists():
            return
        _persist(lambda: _go_on(address, part, progress, expected, token), part, progress)
        _verify(part, address, expected)
        os.replace(part.file, file)
        part.forget()


def read(address: str, token: str = "") -> bytes:
    """What lies at an address, where that is something small."""
    ask_only_online(address)

    def attempt() -> bytes:
        try:
            with _open(address, {}, token) as answer:
                return answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise _Again(_unreachable(address, address, error)) from error

    return _persist(attempt)


def ask_only_online(what: str) -> None:
    """Refuse where the network must not be asked."""
    if settings().offline:
        raise Unavailable(
            f"{what} is not on this machine, and the network is switched off. "
            "'python launch.py list upstreams' shows what is here."
        )


def traces(file: Path) -> list[Path]:
    """What lies here of a file: itself, or the part of it that was fetched."""
    part = _Part(file)
    return [place for place in (file, part.file, part.about) if place.exists()]


def partial(file: Path) -> bool:
    """Whether this is a part of a file that is not all here."""
    return file.name.endswith((".part", ".part.json"))


class _Part:
    """The beginning of a file, and what the server said of the whole."""

    def __init__(self, file: Path) -> None:
        self.of = file.name
        self.file = file.with_name(f"{file.name}.part")
        self.about = file.with_name(f"{file.name}.part.json")

    @property
    def size(self) -> int:
        return self.file.stat().st_size if self.file.exists() else 0

    def known(self) -> dict[str, Any]:
        try:
            found = json.loads(self.about.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def forget(self) -> None:
        self.file.unlink(missing_ok=True)
        self.about.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(file: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Be the only process that fetches this file."""
    name = hashlib.sha256(str(file).encode()).hexdigest()[:12]
    settings().downloads.mkdir(parents=True, exist_ok=True)
    with (settings().downloads / f".{name}.lock").open("a") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waiting()
                time.sleep(0.1)
        yield


def _persist(attempt: Callable[[], T], part: _Part | None = None, progress: Progress = lambda done, total: None) -> T:
    """Try a few times, longer and longer apart; an attempt that came further than all before does not count."""
    failed, furthest = 0, part.size if part else 0
    while True:
        try:
            return attempt()
        except _Again as again:
            size = part.size if part else 0
            failed = 0 if size > furthest else failed + 1
            furthest = max(size, furthest)
            if failed > len(PAUSES):
                raise again.failure from again
            until = time.monotonic() + min(LONGEST_PAUSE, max(again.pause, PAUSES[max(0, failed - 1)]))
            while (left := until - time.monotonic()) > 0:
                progress(size, size)
                time.sleep(min(0.2, left))


def _go_on(address: str, part: _Part, progress: Progress, expected: Expected, token: str) -> None:
    """Fetch what is not here yet. Bytes are put after others only where the server says that the file is the same."""
    known, begun = part.known(), part.size
    validator = str(known.get("validator", ""))
    if begun and not validator and not expected.sha256 and not expected.blob:
        begun = 0
    total = int(expected.size or known.get("total") or 0)
    if begun and begun == total:
        return
    headers = {"Range": f"bytes={begun}-", **({"If-Range": validator} if validator else {})} if begun else {}
    done = begun
    try:
        with _open(address, headers, token) as answer:
            said = str(answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "")
            goes_on = answer.status == 206 and str(answer.headers.get("Content-Range", "")).startswith(f"bytes {begun}-")
            if begun and answer.status == 206 and (not goes_on or (validator and said != validator)):
                part.forget()
                raise _Again(Unavailable(f"{part.of} has changed at {address} meanwhile."))
            done = begun if goes_on else 0
            length = answer.headers.get("Content-Length")
            total = done + int(length) if length else expected.size
            if expected.size and total != expected.size:
                part.forget()
                raise Unavailable(
                    f"{address} has {total:,} bytes, but {part.of} should have {expected.size:,}; nothing was kept."
                )
            if str(answer.headers.get_content_type()) == "text/html" and not part.of.endswith(".html"):
                raise Unavailable(f"{address} answered with a web page instead of {part.of}; nothing was kept.")
            _ask_for_room(part, total - done)
            # A weak tag does not promise the same bytes.
            part.about.write_text(json.dumps({"validator": "" if said.startswith("W/") else said, "total": total}), "utf-8")
            with part.file.open("ab" if goes_on else "wb") as handle:
                while block := answer.read1(BLOCK):
                    _write(handle, block, part, done)
                    done += len(block)
                    progress(done, max(total, done))
    except Denied as denied:
        if denied.status == 416:  # there is nothing after what is here, so what is here is not a part of that file
            part.forget()
            raise _Again(denied) from denied
        raise
    except (OSError, http.client.HTTPException) as error:
        raise _Again(_broke_off(part, address, done, total, error)) from error
    if done < total:
        raise _Again(_broke_off(part, address, done, total))


def _open(address: str, headers: dict[str, str], token: str) -> http.client.HTTPResponse:
    request = urllib.request.Request(address, headers={"User-Agent": "auscult", **headers})
    if token:  # not to be told to the server that an answer leads to
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        with error:
            denied = Denied(address, error.code, str(error.headers.get("X-Error-Code", "")))
            if error.code in {408, 425, 429} or error.code >= 500:
                raise _Again(denied, _asked_pause(error.headers.get("Retry-After"))) from error
            raise denied from error
    return answer


def _asked_pause(said: str | None) -> float:
    return float(said) if said and said.strip().isdecimal() else 0.0


def _unreachable(what: str, address: str, error: Exception) -> Unavailable:
    reason = getattr(error, "reason", error)
    return Unavailable(f"{what} could not be fetched from {address} ({reason}). Is the network there?")


def _broke_off(part: _Part, address: str, done: int, total: int, error: Exception | None = None) -> Unavailable:
    if error is not None and not part.size:
        return _unreachable(part.of, address, error)
    return Unavailable(f"The download of {part.of} broke off at {done:,} of {total:,} bytes. Try again: it goes on.")


def _ask_for_room(part: _Part, needed: int) -> None:
    free = shutil.disk_usage(part.file.parent).free
    if needed > free:
        raise Unavailable(
            f"{part.of} needs {needed:,} more bytes, but the disk of {part.file.parent} has only {free:,} left. "
            "Free some space, then go on."
        )


def _write(handle: IO[bytes], block: bytes, part: _Part, done: int) -> None:
    try:
        handle.write(block)
        handle.flush()
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise
        raise Unavailable(
            f"The disk is full: the download of {part.of} broke off at {done:,} bytes. Free some space, then go on with it."
        ) from error


def _verify(part: _Part, address: str, expected: Expected) -> None:
    """Throw away what is not the file that was meant."""
    if _is_whole(part, expected):
        return
    part.forget()
    raise Unavailable(f"What {address} sent for {part.of} is damaged, so it was thrown away. Try again.")


def _is_whole(part: _Part, expected: Expected) -> bool:
    if expected.size and part.size != expected.size:
        return False
    if expected.sha256:
        return digest(part.file) == expected.sha256
    if expected.blob:
        start = hashlib.sha1(f"blob {part.size}\0".encode(), usedforsecurity=False)
        start.update(part.file.read_bytes())
        return start.hexdigest() == expected.blob
    if not zipfile.is_zipfile(part.file):
        return True
    try:
        with zipfile.ZipFile(part.file) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, zlib.error, EOFError):
        return False


def digest(file: Path) -> str:
    """The SHA-256 of a file."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
