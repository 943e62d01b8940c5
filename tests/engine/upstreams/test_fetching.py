"""Fetching from a server made here: cut connections, wrong bytes, changed files, refusals, and no network after."""

import errno
import hashlib
import io
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch

from engine import download, hubcache, upstream
from engine.download import Expected
from engine.errors import Cancelled, Refused, Unavailable
from engine.settings import HOUSE, settings
from engine.upstreams import torchaudio as bundles

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Server(ThreadingHTTPServer):
    """Serves `files` as the hub serves the repository `us/tiny`, and as plain files, with the faults of real servers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []  # answers with a file end after so many bytes, one after the other
        self.statuses: list[int] = []  # answers that come before any other
        self.always = 0  # the status of every answer
        self.code = ""  # what the hub calls a refusal
        self.pause = ""  # Retry-After
        self.wrong = b""  # what the hub says that its files hold, where that is something else
        self.forgets = False  # takes no notice of If-Range
        self.tags = True
        self.kind = "application/octet-stream"
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *given: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.headers.append(dict(self.headers.items()))
        name = self.path.rsplit("/", 1)[-1].split("?")[0]
        status = self.server.always or (self.server.statuses.pop(0) if self.server.statuses else 0)
        if status:
            self.refuse(status, self.server.code)
        elif self.path.startswith("/api/models/us/tiny/"):
            self.send(self.described(), {})
        elif self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/moved").replace("us/tiny", "elsewhere"))
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif name not in self.server.files or "/api/" in self.path:
            self.refuse(404, "RepoNotFound")
        else:
            self.send_file(self.server.files[name])

    def described(self) -> bytes:
        siblings = []
        for name, data in self.server.files.items():
            said = self.server.wrong or data
            file: dict[str, object] = {"rfilename": name, "size": len(said), "blobId": blob(said)}
            if name.endswith((".safetensors", ".bin")):
                file["lfs"] = {"sha256": hashlib.sha256(said).hexdigest(), "size": len(said)}
            siblings.append(file)
        return json.dumps({"id": "us/tiny", "sha": COMMIT, "siblings": siblings}).encode()

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        if self.server.pause:
            self.send_header("Retry-After", self.server.pause)
        self.end_headers()

    def send_file(self, data: bytes) -> None:
        tag = f'"{hashlib.sha256(data).hexdigest()}"' if self.server.tags else ""
        about = {"ETag": tag} if tag else {}
        begin = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0])
        if begin and not self.server.forgets and self.headers.get("If-Range", tag) != tag:
            begin = 0
        if begin >= len(data):
            self.refuse(416, "")
        elif begin:
            self.send(data[begin:], {**about, "Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"}, 206)
        else:
            self.send(data, about)

    def send(self, data: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), "Content-Type": self.server.kind, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts and "/api/" not in self.path else len(data)
        self.wfile.write(data[:cut])


def blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("AUSCULT_OFFLINE", "0")
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setenv("HF_TOKEN_PATH", "/nowhere")
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.01, 0.02))
    settings.cache_clear()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def repository(server: Server, tmp_path: Path) -> Server:
    """The server with a whole checkpoint."""
    tiny.checkpoint(tmp_path, "hubert")
    server.files = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    return server


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUSCULT_OFFLINE", "1")
    settings.cache_clear()


def fetch(card: upstream.Card) -> list[tuple[float, float]]:
    told: list[tuple[float, float]] = []
    assert card.fetch is not None
    card.fetch(card, lambda done, total: told.append((done, total)))
    return told


def lies(ending: str) -> list[Path]:
    return [file for file in settings().downloads.rglob("*") if file.name.endswith(ending)]


def test_a_checkpoint_of_the_hub_is_fetched_once_and_works_offline(
    repository: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = upstream.find("hf:us/tiny")
    assert (card.layers, card.dims, card.here) == (2, (16, 16, 16), False)
    told = fetch(card)
    names = ("preprocessor_config.json", "config.json", "model.safetensors")
    whole = sum(len(repository.files[name]) for name in names)
    assert told[-1] == (whole, whole)
    assert all(before[0] <= after[0] for before, after in zip(told, told[1:], strict=False))
    go_offline(monkeypatch)
    asked = len(repository.asked)
    card = upstream.find("hf:us/tiny")
    assert (card.here, card.revision) == (True, COMMIT)
    assert card in upstream.cards()
    wave = torch.randn(4_000)
    with torch.inference_mode():
        fetched = upstream.load("hf:us/tiny").encode([wave])
        local = upstream.load(f"hf:{tmp_path}").encode([wave])
        exact = upstream.load(f"hf:us/tiny@{COMMIT}").encode([wave])
    assert torch.equal(fetched.states[-1], local.states[-1])
    assert torch.equal(fetched.states[-1], exact.states[-1])
    assert len(repository.asked) == asked


def test_a_fetch_that_is_cancelled_goes_on_at_its_byte(repository: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "BLOCK", 8_192)
    card = upstream.find("hf:us/tiny")
    small = len(repository.files["config.json"]) + len(repository.files["preprocessor_config.json"])

    def cancel(done: float, total: float) -> None:
        if done > small + 8_192:
            raise Cancelled("Asked to stop.")

    assert card.fetch is not None
    with pytest.raises(Cancelled):
        card.fetch(card, cancel)
    assert not upstream.find("hf:us/tiny").here
    (part,) = lies("safetensors.part")
    begun = part.stat().st_size
    assert begun > 8_192
    fetch(card)
    assert repository.headers[-1]["Range"] == f"bytes={begun}-"
    assert lies(".part") == lies(".part.json") == []
    assert upstream.find("hf:us/tiny").here


def test_the_hubs_wrong_bytes_are_thrown_away(repository: Server) -> None:
    card = upstream.find("hf:us/tiny")
    for name in ("model.safetensors", "config.json"):
        whole = repository.files[name]
        for folder in lies(COMMIT):
            shutil.rmtree(folder)
        repository.wrong = bytes([whole[0] ^ 1]) + whole[1:]
        with pytest.raises(Unavailable, match=rf"What http.* sent for {name} is damaged, so it was thrown away"):
            hubcache.fetch("us/tiny", "", [name])
        assert lies(name) == lies(".part") == []
    repository.wrong = b""
    fetch(card)
    assert upstream.find("hf:us/tiny").here


def test_a_file_of_another_size_than_the_hub_said_is_not_taken(repository: Server) -> None:
    repository.wrong = b"12345"
    with pytest.raises(Unavailable, match="but config.json should have 5; nothing was kept"):
        hubcache.fetch("us/tiny", "", ["config.json"])
    assert lies("config.json") == lies(".part") == []


def test_what_the_hub_does_not_have_gets_a_sentence(server: Server) -> None:
    with pytest.raises(Refused, match="The hub has no us/other"):
        upstream.find("hf:us/other")
    server.files = {"README.md": b"#", "config.json": b'{"model_type": "hubert"}'}
    with pytest.raises(Refused, match=r"us/tiny on the hub has no config.json with model.safetensors"):
        upstream.load("hf:us/tiny")
    with pytest.raises(Refused, match="us/tiny on the hub has no model.safetensors"):
        hubcache.fetch("us/tiny", "", ["config.json", "model.safetensors"])


@pytest.mark.parametrize("name", ["us/../tiny", "us/tiny@../../x", "u s/tiny", "us/tiny?x=1"])
def test_a_name_that_leads_elsewhere_is_no_name(name: str, server: Server) -> None:
    with pytest.raises(Refused, match="is neither a folder|no name like ORGANISATION/NAME"):
        upstream.find(f"hf:{name}")
    assert server.asked == []


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (401, "RepoNotFound", "The hub has no us/tiny under this name and revision that is open to you"),
        (403, "GatedRepo", "us/tiny asks you to accept its terms on the hub first"),
        (404, "RevisionNotFound", "The hub has no us/tiny under this name"),
        (429, "", "The hub has too many questions of this machine for now"),
        (500, "", "us/tiny could not be fetched: .* answered 500"),
        (418, "", "us/tiny could not be fetched: .* answered 418"),
    ],
)
def test_what_the_hub_answers_gets_a_sentence(status: int, code: str, sentence: str, repository: Server) -> None:
    repository.always, repository.code = status, code
    with pytest.raises((Refused, Unavailable), match=sentence):
        upstream.find("hf:us/tiny")
    assert len(repository.asked) == (4 if status in {429, 500} else 1)


def test_an_index_that_names_another_folder_is_refused(repository: Server) -> None:
    del repository.files["model.safetensors"]
    index = {"weight_map": {"a": "../../../other.safetensors"}}
    repository.files["model.safetensors.index.json"] = json.dumps(index).encode()
    with pytest.raises(Refused, match="names files that are not safetensors beside it"):
        fetch(upstream.find("hf:us/tiny"))
    assert not any("other" in path for path in repository.asked)


def test_an_answer_that_describes_nothing_gets_a_sentence(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for said in (b"<html>", b"[1]", b'{"sha": 3}', b'{"sha": "main", "siblings": []}'):
        monkeypatch.setattr(_Answer, "described", lambda answer, said=said: said)
        with pytest.raises(Unavailable, match="answered with something that"):
            upstream.find("hf:us/tiny")


def test_the_token_opens_the_hub_and_goes_nowhere_else(repository: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    hubcache.fetch("us/tiny", "", ["config.json"])
    assert all(header["Authorization"] == "Bearer secret" for header in repository.headers)
    download.fetch(
        f"{repository.address}/moved/us/tiny/config.json", settings().downloads / "config.json", silent, token="secret"
    )
    assert ["Authorization" in header for header in repository.headers[-2:]] == [True, False]


def test_the_token_may_lie_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_TOKEN_PATH", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert hubcache.token() == ""
    (tmp_path / "token").write_text("secret\n")
    assert hubcache.token() == "secret"


def silent(done: float, total: float) -> None:
    """Progress that nobody wants to know."""


def pth() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("weights", bytes(range(256)) * 40)
    return buffer.getvalue()


@pytest.fixture
def bundle(server: Server, monkeypatch: pytest.MonkeyPatch) -> upstream.Card:
    server.files = {"tiny.pth": pth()}
    monkeypatch.setattr(bundles, "BUNDLES", [("TINY", f"{server.address}/tiny.pth", bundles.BASE, bundles.W2V, "")])
    return upstream.find("torchaudio:TINY")


def bundle_file() -> Path:
    return settings().downloads / "torchaudio" / "TINY.pth"


def test_a_cut_connection_is_gone_on_with_at_once(server: Server, bundle: upstream.Card) -> None:
    server.cuts = [4_000, 3_000, 100]
    told = fetch(bundle)
    assert [header.get("Range") for header in server.headers] == [None, "bytes=4000-", "bytes=7000-", "bytes=7100-"]
    assert told[-1] == (len(server.files["tiny.pth"]),) * 2
    assert bundle_file().read_bytes() == server.files["tiny.pth"]
    assert upstream.find("torchaudio:TINY").here


def test_a_download_that_breaks_off_for_good_goes_on_later(server: Server, bundle: upstream.Card) -> None:
    server.cuts = [4_000, 0, 0, 0, 0]
    with pytest.raises(Unavailable, match=r"broke off at 4,000 of 10,3.* bytes\. Try again: it goes on"):
        fetch(bundle)
    assert not upstream.find("torchaudio:TINY").here
    told = fetch(bundle)
    assert told[0][0] > 4_000
    assert bundle_file().read_bytes() == server.files["tiny.pth"]


@pytest.mark.parametrize("forgets", [False, True])
@pytest.mark.parametrize("tags", [True, False])
def test_a_file_that_changes_meanwhile_is_not_glued_together(
    tags: bool, forgets: bool, server: Server, bundle: upstream.Card
) -> None:
    server.tags, server.forgets = tags, forgets
    server.cuts = [4_000, 0, 0, 0, 0]
    with pytest.raises(Unavailable, match="broke off at"):
        fetch(bundle)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("weights", bytes(range(255, -1, -1)) * 40)
    server.files["tiny.pth"] = buffer.getvalue()
    fetch(bundle)
    assert bundle_file().read_bytes() == server.files["tiny.pth"]


def test_a_part_that_is_longer_than_the_file_is_begun_anew(server: Server, bundle: upstream.Card) -> None:
    server.cuts = [9_000, 0, 0, 0, 0]
    with pytest.raises(Unavailable, match="broke off"):
        fetch(bundle)
    server.forgets = True
    server.files["tiny.pth"] = b"short"
    fetch(bundle)
    assert bundle_file().read_bytes() == b"short"


def test_a_part_that_was_whole_is_not_fetched_again(server: Server, bundle: upstream.Card) -> None:
    fetch(bundle)
    whole = server.files["tiny.pth"]
    asked = len(server.asked)
    fetch(bundle)  # a file that is here stays
    bundle_file().rename(bundle_file().with_name("TINY.pth.part"))
    about = {"validator": '"x"', "total": len(whole)}
    bundle_file().with_name("TINY.pth.part.json").write_text(json.dumps(about))
    fetch(bundle)
    assert bundle_file().read_bytes() == whole
    assert len(server.asked) == asked


def test_wrong_bytes_are_thrown_away(server: Server, bundle: upstream.Card) -> None:
    whole = server.files["tiny.pth"]
    server.files["tiny.pth"] = whole[:2_000] + b"x" + whole[2_001:]
    with pytest.raises(Unavailable, match="is damaged, so it was thrown away"):
        fetch(bundle)
    assert lies(".pth") == lies(".part") == lies(".part.json") == []


def test_a_hash_that_is_known_is_compared(server: Server, workspace: Path) -> None:
    server.files = {"a.bin": b"abc"}
    file = workspace / "a.bin"
    with pytest.raises(Unavailable, match="sent for a.bin is damaged"):
        download.fetch(f"{server.address}/a.bin", file, silent, Expected(sha256=hashlib.sha256(b"abd").hexdigest()))
    assert not file.exists()
    download.fetch(f"{server.address}/a.bin", file, silent, Expected(3, hashlib.sha256(b"abc").hexdigest()))
    assert file.read_bytes() == b"abc"


@pytest.mark.parametrize(("status", "times"), [(404, 1), (403, 1), (429, 4), (500, 4), (503, 4)])
def test_a_server_that_refuses_is_named(status: int, times: int, server: Server, bundle: upstream.Card) -> None:
    server.always = status
    with pytest.raises(Unavailable, match=rf"tiny.pth answered {status}"):
        fetch(bundle)
    assert len(server.asked) == times


def test_a_server_in_trouble_is_asked_again(server: Server, bundle: upstream.Card) -> None:
    server.statuses = [500, 429, 503]
    fetch(bundle)
    assert bundle_file().exists()
    assert len(server.asked) == 4


def test_a_server_that_wants_a_pause_gets_it_and_cancelling_does_not_wait(server: Server, bundle: upstream.Card) -> None:
    server.statuses, server.pause = [429], "1"
    began = time.monotonic()
    fetch(bundle)
    assert 0.95 < time.monotonic() - began < 5
    bundle_file().unlink()
    server.statuses, server.pause = [429], "3000"
    began = time.monotonic()

    def cancel(done: float, total: float) -> None:
        if time.monotonic() - began > 0.3:
            raise Cancelled("Asked to stop.")

    assert bundle.fetch is not None
    with pytest.raises(Cancelled):
        bundle.fetch(bundle, cancel)
    assert time.monotonic() - began < 3


def test_a_web_page_is_not_taken_for_the_file(server: Server, bundle: upstream.Card) -> None:
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(Unavailable, match="answered with a web page instead of TINY.pth"):
        fetch(bundle)
    assert lies(".pth") == lies(".part") == []


def test_nobody_there_gets_a_sentence(workspace: Path, server: Server) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Unavailable, match=r"a.bin could not be fetched from http.*refused.* Is the network there\?"):
        download.fetch(f"http://127.0.0.1:{port}/a.bin", workspace / "a.bin", silent)


def test_too_little_room_is_said_before_a_byte_is_written(
    server: Server, bundle: upstream.Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: SimpleNamespace(free=5_000))
    with pytest.raises(Unavailable, match=r"TINY.pth needs 10,3\d\d more bytes, but the disk of .* has only 5,000 left"):
        fetch(bundle)
    assert lies(".part") == []


def test_a_disk_that_fills_up_is_said(server: Server, bundle: upstream.Card, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: object, block: bytes, *given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write = download._write
    handle = SimpleNamespace(write=lambda block: full(None, block), flush=lambda: None)
    monkeypatch.setattr(download, "_write", lambda _, *given: write(handle, *given))
    with pytest.raises(Unavailable, match=r"The disk is full: the download of TINY.pth broke off at 0 bytes"):
        fetch(bundle)
    monkeypatch.undo()
    assert len(server.asked) == 1


def test_two_processes_that_fetch_the_same_file_do_not_spoil_it(server: Server, workspace: Path) -> None:
    server.files = {"a.bin": bytes(range(256)) * 4_000}
    file = workspace / "a.bin"
    script = (
        "import sys; from pathlib import Path; from engine import download\n"
        f"download.fetch('{server.address}/a.bin', Path('{file}'), lambda done, total: None)"
    )
    children = [subprocess.Popen([sys.executable, "-c", script], cwd=HOUSE) for _ in range(3)]
    assert [child.wait(60) for child in children] == [0, 0, 0]
    assert file.read_bytes() == server.files["a.bin"]
    assert len(server.asked) == 1


def test_offline_nothing_is_asked(server: Server, bundle: upstream.Card, monkeypatch: pytest.MonkeyPatch) -> None:
    go_offline(monkeypatch)
    with pytest.raises(Unavailable, match="TINY.pth is not on this machine, and the network is switched off"):
        fetch(bundle)
    with pytest.raises(Unavailable, match="us/tiny is not on this machine, and the network is switched off"):
        hubcache.offered("us/tiny")
    assert server.asked == []
