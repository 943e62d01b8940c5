"""Removes what killed writers leave behind."""

import os
import shutil
import time
from pathlib import Path

import psutil


def sweep(folder: Path, *, seconds: float = 60.0) -> list[Path]:
    """Remove temporary files (`.NAME.PROCESS.tmp`) that are older than `seconds` and whose writer is gone.

    A name without a process number says nothing about its writer; it is removed after an hour.
    """
    swept = []
    for root, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            if not (name.startswith(".") and name.endswith(".tmp")):
                continue
            place = Path(root, name)
            writer = name.split(".")[-2]
            try:
                age = time.time() - place.stat().st_mtime
                gone = not psutil.pid_exists(int(writer)) if writer.isdigit() else age > 3600
                if gone and age >= seconds:
                    shutil.rmtree(place) if place.is_dir() else place.unlink()
                    swept.append(place)
            except OSError:
                continue
        folders[:] = [name for name in folders if not name.endswith(".tmp")]
    return swept
