"""Fetching from a server made here: whole files, cut connections, wrong bytes, what is not there, and no network after."""

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import tiny
import torch

from engine import upstream
from engine.errors import Cancelled, Refused, Unavailable
from engine.settings import settings
from engine.upstreams import torchaudio as bundles

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Server(ThreadingHTTPServer):
    """Serves `files` as the hub serves the repository `us/tiny`, and as plain files; `cut` ends an answer early."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files: dict[str, bytes] = {}
        self.cut = 0
        self.status = 0
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *given: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, body: bool = True) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        name = self.path.rsplit("/", 1)[-1].split("?")[0]
        if self.server.status:
            self.send_error(self.server.status)
        elif "/api/models/us/tiny" in self.path:
            siblings = [{"rfilename": name, "size": len(data)} for name, data in self.server.files.items()]
            self.answer(json.dumps({"id": "us/tiny", "sha": COMMIT, "siblings": siblings}).encode(), body)
        elif name not in self.server.files or "/api/" in self.path:
            self.send_response(404)
            missing = "RepoNotFound" if "us/tiny" not in self.path else "EntryNotFound"
            self.send_header("X-Error-Code", missing)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.answer(self.server.files[name], body)

    def answer(self, data: bytes, body: bool) -> None:
        begin = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0])
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(data) - begin))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(data[begin : begin + self.server.cut] if self.server.cut else data[begin:])
            self.wfile.flush()
            if self.server.cut:
                self.connection.close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("AUSCULT_OFFLINE", "0")
    settings.cache_clear()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUSCULT_OFFLINE", "1")
    settings.cache_clear()


def test_a_checkpoint_of_the_hub_is_fetched_once_and_works_offline(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.checkpoint(tmp_path, "hubert")
    server.files = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    card = upstream.find("hf:us/tiny")
    assert (card.layers, card.dims, card.here) == (2, (16, 16, 16), False)
    told: list[tuple[float, float]] = []
    assert card.fetch is not None
    card.fetch(card, lambda done, total: told.append((done, total)))
    assert told[-1][0] >= len(server.files["model.safetensors"])
    go_offline(monkeypatch)
    asked = len(server.asked)
    card = upstream.find("hf:us/tiny")
    assert (card.here, card.revision) == (True, COMMIT)
    wave = torch.randn(4_000)
    with torch.inference_mode():
        fetched = upstream.load("hf:us/tiny").encode([wave])
        local = upstream.load(f"hf:{tmp_path}").encode([wave])
        exact = upstream.load(f"hf:us/tiny@{COMMIT}").encode([wave])
    assert torch.equal(fetched.states[-1], local.states[-1])
    assert torch.equal(fetched.states[-1], exact.states[-1])
    assert len(server.asked) == asked


def test_a_fetch_that_is_cancelled_stops(server: Server, tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path, "hubert")
    server.files = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    card = upstream.find("hf:us/tiny")

    def cancel(done: float, total: float) -> None:
        raise Cancelled("Asked to stop.")

    assert card.fetch is not None
    with pytest.raises(Cancelled):
        card.fetch(card, cancel)
    assert not upstream.find("hf:us/tiny").here


def test_what_the_hub_does_not_have_gets_a_sentence(server: Server) -> None:
    with pytest.raises(Refused, match="The hub has no us/other"):
        upstream.find("hf:us/other")
    server.files = {"README.md": b"#", "config.json": b'{"model_type": "hubert"}'}
    with pytest.raises(Refused, match=r"us/tiny on the hub has no config.json with model.safetensors"):
        upstream.load("hf:us/tiny")


def pth() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("weights", bytes(range(256)) * 40)
    return buffer.getvalue()


@pytest.fixture
def bundle(server: Server, monkeypatch: pytest.MonkeyPatch) -> upstream.Card:
    server.files = {"tiny.pth": pth()}
    monkeypatch.setattr(bundles, "BUNDLES", [("TINY", f"{server.address}/tiny.pth", bundles.BASE, "none", "")])
    return upstream.find("torchaudio:TINY")


def fetch(card: upstream.Card) -> list[tuple[float, float]]:
    told: list[tuple[float, float]] = []
    assert card.fetch is not None
    card.fetch(card, lambda done, total: told.append((done, total)))
    return told


def test_a_broken_off_download_goes_on_where_it_ended(server: Server, bundle: upstream.Card) -> None:
    server.cut = 4_000
    with pytest.raises(Unavailable, match="broke off at 4,000 of"):
        fetch(bundle)
    assert not upstream.find("torchaudio:TINY").here
    server.cut = 0
    told = fetch(bundle)
    assert told[0][0] > 4_000
    assert told[-1] == (len(server.files["tiny.pth"]),) * 2
    assert (settings().downloads / "torchaudio" / "TINY.pth").read_bytes() == server.files["tiny.pth"]
    assert upstream.find("torchaudio:TINY").here


def test_wrong_bytes_are_thrown_away(server: Server, bundle: upstream.Card) -> None:
    whole = server.files["tiny.pth"]
    server.files["tiny.pth"] = whole[:2_000] + b"x" + whole[2_001:]
    with pytest.raises(Unavailable, match="is damaged, so it was thrown away"):
        fetch(bundle)
    assert list((settings().downloads / "torchaudio").iterdir()) == []


@pytest.mark.parametrize("status", [404, 429, 500])
def test_a_server_that_refuses_is_named(status: int, server: Server, bundle: upstream.Card) -> None:
    server.status = status
    with pytest.raises(Unavailable, match=rf"tiny.pth answered {status}"):
        fetch(bundle)
