"""Repositories of the Hugging Face hub: what is offered there, bringing files of it into the workspace, what lies here.

Files lie as the hub's own client keeps them: snapshots of a repository by commit, refs from a name to a commit. As for
that client, HF_ENDPOINT names another hub and HF_TOKEN opens what is closed. Every file is checked against its hash.
"""

import json
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from engine import download
from engine.download import Denied, Expected, Progress
from engine.errors import Refused, Unavailable
from engine.settings import settings

HUB = "https://huggingface.co"


def endpoint() -> str:
    """The address of the hub."""
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def repositories() -> Iterator[str]:
    """The name of every repository of which something lies here."""
    for folder in sorted(_cache().glob("models--*--*")):
        yield folder.name.removeprefix("models--").replace("--", "/", 1)


def commit(repository: str, revision: str = "") -> str:
    """The commit that a revision stood for when it was fetched; empty where nothing of it is here."""
    home = _home(repository)
    if revision and (home / "snapshots" / revision).is_dir():
        return revision
    try:
        return (home / "refs" / (revision or "main")).read_text("utf-8").strip()
    except OSError:
        return ""


def snapshot(repository: str, revision: str = "") -> Path | None:
    """The folder of what is here of a revision."""
    _check(repository, revision)
    here = commit(repository, revision)
    folder = _home(repository) / "snapshots" / here
    return folder if here and folder.is_dir() else None


def offered(repository: str, revision: str = "") -> dict[str, Expected]:
    """What the hub has of a revision: the name of each file, and how it can be known."""
    return _ask(repository, revision)[1]


def fetch(
    repository: str, revision: str, names: Sequence[str], progress: Progress = lambda done, total: None, optional: str = ""
) -> None:
    """Bring files of a revision here, all of them, but for one that a repository may do without."""
    found, files = _ask(repository, revision)
    wanted = [name for name in names if name in files or name != optional]
    if missing := [name for name in wanted if name not in files]:
        raise Refused(f"{repository} on the hub has no {' and no '.join(missing)}.")
    folder = _home(repository) / "snapshots" / found
    total, done = sum(files[name].size for name in wanted), 0
    for name in wanted:

        def told(now: float, _: float, before: int = done) -> None:
            progress(before + now, max(total, before + now))

        address = f"{endpoint()}/{repository}/resolve/{found}/{quote(name)}"
        try:
            download.fetch(address, folder / name, told, files[name], token())
        except Denied as denied:
            raise _sentence(repository, denied) from denied
        done += files[name].size or (folder / name).stat().st_size
        progress(done, max(total, done))
    if revision != found:
        _refer(_home(repository) / "refs" / (revision or "main"), found)


def lying(repository: str) -> list[Path]:
    """Every file of a repository that is here, whole or in part."""
    return [file for file in sorted(_home(repository).rglob("*")) if file.is_file() or file.is_symlink()]


def _ask(repository: str, revision: str) -> tuple[str, dict[str, Expected]]:
    _check(repository, revision)
    download.ask_only_online(repository)
    address = f"{endpoint()}/api/models/{repository}/revision/{quote(revision or 'main', safe='')}?blobs=true"
    try:
        told = json.loads(download.read(address, token()))
        found = str(told["sha"])
        files = {str(file["rfilename"]): _expected(file) for file in told["siblings"]}
    except Denied as denied:
        raise _sentence(repository, denied) from denied
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unavailable(f"{address} answered with something that does not describe a repository.") from error
    if not re.fullmatch(r"[0-9a-f]{40}", found):
        raise Unavailable(f"{address} answered with something that is no commit.")
    # A name that leads out of its folder is no name.
    return found, {name: file for name, file in files.items() if not name.startswith("/") and ".." not in name.split("/")}


def _expected(file: dict[str, Any]) -> Expected:
    large = file.get("lfs") or {}
    return Expected(
        size=int(large.get("size") or file.get("size") or 0),
        sha256=str(large.get("sha256") or ""),
        blob="" if large else str(file.get("blobId") or ""),
    )


def _check(repository: str, revision: str) -> None:
    named = re.fullmatch(r"[\w.-]+/[\w.-]+", repository) and re.fullmatch(r"[\w./-]*", revision)
    if not named or ".." in f"{repository}{revision}":
        raise Refused(f"'{repository}{'@' if revision else ''}{revision}' is no name like ORGANISATION/NAME on the hub.")


def _sentence(repository: str, denied: Denied) -> Refused | Unavailable:
    if denied.code == "GatedRepo":
        return Unavailable(
            f"{repository} asks you to accept its terms on the hub first; then put your access token into HF_TOKEN."
        )
    if denied.code in {"RepoNotFound", "RevisionNotFound"} or denied.status in {401, 403, 404}:
        return Refused(f"The hub has no {repository} under this name and revision that is open to you.")
    if denied.status == 429:
        return Unavailable(f"The hub has too many questions of this machine for now ({denied}) Try again in some minutes.")
    return Unavailable(f"{repository} could not be fetched: {denied}")


def token() -> str:
    """The access token of the hub, from where its own client has it."""
    if said := os.environ.get("HF_TOKEN", "").strip():
        return said
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    try:
        return Path(os.environ.get("HF_TOKEN_PATH") or f"{home}/token").expanduser().read_text("utf-8").strip()
    except OSError:
        return ""


def _refer(file: Path, commit: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{secrets.token_hex(3)}.tmp")
    beside.write_text(commit, "utf-8")
    os.replace(beside, file)


def _cache() -> Path:
    return settings().downloads / "huggingface"


def _home(repository: str) -> Path:
    return _cache() / f"models--{repository.replace('/', '--')}"
