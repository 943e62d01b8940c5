"""Fetches one file from an address: goes on where it broke off, and takes nothing that is damaged."""

import os
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

from engine.errors import Unavailable
from engine.settings import settings


def fetch(address: str, file: Path, progress: Callable[[float, float], None]) -> None:
    """Bring what lies at an address into a file, saying how many bytes are done of how many."""
    if settings().offline:
        raise Unavailable(
            f"{file.name} is not on this machine, and the network is switched off. "
            "'python launch.py list upstreams' shows what is here."
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    begun = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={begun}-"} if begun else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            goes_on = answer.status == 206
            done = begun if goes_on else 0
            total = done + int(answer.headers.get("Content-Length") or 0)
            with part.open("ab" if goes_on else "wb") as handle:
                while block := answer.read(2**20):
                    handle.write(block)
                    done += len(block)
                    progress(done, max(total, done))
    except urllib.error.HTTPError as error:
        if error.code == 416:  # there is nothing after what is here, so what is here is not a part of that file
            part.unlink()
        raise Unavailable(f"{address} answered {error.code}, so {file.name} could not be fetched.") from error
    except OSError as error:
        raise Unavailable(f"{file.name} could not be fetched from {address} ({error}).") from error
    if done < total:
        raise Unavailable(f"The download of {file.name} broke off at {done:,} of {total:,} bytes. Try again: it goes on.")
    if zipfile.is_zipfile(part) and zipfile.ZipFile(part).testzip():
        part.unlink()
        raise Unavailable(f"What {address} sent for {file.name} is damaged, so it was thrown away. Try again.")
    os.replace(part, file)
