"""Where things live and how much is allowed, read from the environment once."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HOUSE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Settings:
    """Every setting of this installation; each has an environment variable of the same name with AUSCULT_ before it."""

    workspace: Path  # everything a user makes: jobs, rows, downloads, uploads, extensions
    offline: bool  # never ask the network
    device: str  # "auto", "cpu", "cuda" or "cuda:1"
    cpu_slots: int  # runs at a time where there is no GPU
    upload_megabytes: int
    clip_seconds: float  # longest sound that is decoded whole
    own_code: bool  # may import what python:MODULE:FACTORY names; the command line says so for itself, a page never can

    @property
    def jobs(self) -> Path:
        return self.workspace / "jobs"

    @property
    def rows(self) -> Path:
        return self.workspace / "rows"

    @property
    def downloads(self) -> Path:
        return self.workspace / "downloads"

    @property
    def uploads(self) -> Path:
        return self.workspace / "uploads"

    @property
    def extensions(self) -> Path:
        return self.workspace / "extensions"


@cache
def settings() -> Settings:
    """The settings of this process. Tests that change the environment call `settings.cache_clear()`."""

    def read(name: str, default: str) -> str:
        return os.environ.get(f"AUSCULT_{name}", default)

    offline = read("OFFLINE", os.environ.get("HF_HUB_OFFLINE", "0"))
    return Settings(
        workspace=Path(read("WORKSPACE", str(HOUSE / "workspace"))).resolve(),
        offline=offline.lower() in {"1", "true", "yes", "on"},
        device=read("DEVICE", "auto"),
        cpu_slots=int(read("CPU_SLOTS", "1")),
        upload_megabytes=int(read("UPLOAD_MEGABYTES", "100")),
        clip_seconds=float(read("CLIP_SECONDS", "1800")),
        own_code=read("OWN_CODE", "0") == "1",
    )


def allow_own_code(allowed: bool) -> None:
    """Say whether this process, and what it starts, may import what `python:` names."""
    os.environ["AUSCULT_OWN_CODE"] = "1" if allowed else "0"
    settings.cache_clear()
