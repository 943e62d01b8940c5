"""The gate's rules, one by one: who may ask what."""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from app.gate import LOCAL_NAMES, TRIES_A_MINUTE, Gate

JOIN = "/studio/gradio_api/queue/join"
UPLOAD = "/studio/gradio_api/upload"
BOARD_UPLOAD = "/board/_stcore/upload_file/a/b"
STREAM = "/board/_stcore/stream"
HOST = "127.0.0.1:7860"
ORIGIN = f"http://{HOST}"
TOKEN = "a long and secret word"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


async def behind(scope: Scope, receive: Receive, send: Send) -> None:
    """Whatever gets through is answered with the size of its body."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    try:
        body = await Request(scope, receive).body()
    except ClientDisconnect:
        body = b"interrupted"
    await PlainTextResponse(f"{len(body)} bytes")(scope, receive, send)


@dataclass
class Said:
    status: int  # 101 for a web socket that opens
    headers: dict[str, str]
    body: str


def ask(
    gate: Gate,
    path: str = "/healthz",
    method: str = "GET",
    *,
    host: str | list[str] = HOST,
    body: Iterable[bytes] = (b"",),
    address: str = "10.0.0.1",
    **headers: str,
) -> Said:
    """One request, as a server would hand it over. `WEBSOCKET` is a method here."""
    path, _, query = path.partition("?")
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    raw = [(b"host", one.encode()) for one in ([host] if isinstance(host, str) else host)]
    raw += [(name.encode(), value.encode()) for name, value in named.items()]
    kind = "websocket" if method == "WEBSOCKET" else "http"
    scope: dict[str, Any] = {"type": kind, "path": unquote(path), "query_string": query.encode(), "headers": raw}
    scope |= {"scheme": "http", "client": (address, 5000), "extensions": {}}
    if kind == "http":
        scope["method"] = method
    chunks = iter(body)
    said: list[Any] = []

    async def receive() -> Any:
        chunk = next(chunks, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    async def send(message: Any) -> None:
        said.append(message)

    asyncio.run(gate(scope, receive, send))
    if kind == "websocket":
        return Said(101 if said[0]["type"] == "websocket.accept" else 403, {}, "")
    answered = {name.decode().lower(): value.decode() for name, value in said[0]["headers"]}
    return Said(said[0]["status"], answered, b"".join(message.get("body", b"") for message in said[1:]).decode())


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:7860", "localhost:1", "LOCALHOST:7860", "[::1]:7860", "[::1]"])
def test_own_hosts_pass(host: str) -> None:
    assert ask(Gate(behind), host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.test",
        "evil.test:7860",
        "127.0.0.1.evil.test",
        "localhost.evil.test",
        "evil.test:127.0.0.1",
        "localhost.",
        "127.0.0.1.",
        "127.0.0.1.:7860",
        "127.0.0.1:",
        "127.0.0.1:0",
        "127.0.0.1:99999",
        "127.0.0.1:80:80",
        "127.0.0.1:8a",
        "127.0.0.1@evil.test",
        "user@127.0.0.1",
        "127.0.0.1/evil.test",
        "127.0.0.1, evil.test",
        "127.1",
        "0.0.0.0",
        "2130706433",
        "0x7f000001",
        "192.168.0.7:7860",
        "[::]",
        "[::1].evil.test",
        "[::1]:",
        "[::1",
        "::1",
        "[::ffff:127.0.0.1]",
        "",
        " ",
        ":7860",
    ],
)
def test_other_hosts_are_refused(host: str) -> None:
    assert ask(Gate(behind), host=host).status == 403
    assert ask(Gate(behind), STREAM, "WEBSOCKET", host=host).status == 403


@pytest.mark.parametrize("hosts", [[], [HOST, HOST], [HOST, "evil.test"]])
def test_a_request_has_one_host(hosts: list[str]) -> None:
    assert ask(Gate(behind), host=hosts).status == 403


def test_a_public_server_answers_to_its_name_and_to_numeric_addresses() -> None:
    public = Gate(behind, names={*LOCAL_NAMES, "box"}, is_public=True, token=TOKEN)
    expected = {"192.168.0.7:7860": 200, "[fe80::1]:7860": 200, "box": 200, "evil.test": 403, "box.evil.test": 403}
    assert {host: ask(public, host=host).status for host in expected} == expected


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.test",
        "null",
        "https://evil.test:7860",
        "http://127.0.0.1",
        "http://127.0.0.1:3000",
        "http://localhost:7860",
        "http://127.0.0.1:7860.evil.test",
        "http://127.0.0.1:7860@evil.test",
        "http://127.0.0.1:7860/",
        "http://127.0.0.1:7860, http://evil.test",
        "file://",
        "ftp://127.0.0.1:7860",
        "127.0.0.1:7860",
        "http://[",
        "",
    ],
)
@pytest.mark.parametrize("cookie", ["with", "without"])
def test_other_origins_are_refused_whatever_they_ask(origin: str, cookie: str) -> None:
    gate = Gate(behind, token=TOKEN)
    held = {"cookie": enter(gate)} if cookie == "with" else {}
    for path in ("/studio/", JOIN, UPLOAD, BOARD_UPLOAD):
        for method in METHODS:
            assert ask(gate, path, method, origin=origin, **held).status == 403, (method, path)
    assert ask(gate, STREAM, "WEBSOCKET", origin=origin, **held).status == 403


def test_own_origin_passes() -> None:
    gate = Gate(behind)
    assert ask(gate, JOIN, "POST", origin=ORIGIN).status == 200
    assert ask(gate, JOIN, "POST").status == 200  # a program, not a browser
    assert ask(gate, JOIN, "POST", host="localhost:7860", origin="http://localhost:7860").status == 200
    assert ask(gate, JOIN, "POST", host="localhost", origin="http://localhost").status == 200
    assert ask(gate, STREAM, "WEBSOCKET", origin=ORIGIN).status == 101
    assert ask(gate, STREAM, "WEBSOCKET").status == 101


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/studio/", {"GET", "HEAD"}),
        (JOIN, {"POST"}),
        (BOARD_UPLOAD, {"PUT", "DELETE"}),
        ("/board/results", {"GET", "HEAD"}),
        (STREAM, {"WEBSOCKET"}),
    ],
)
def test_only_the_methods_of_a_row_pass(path: str, methods: set[str]) -> None:
    for method in [*METHODS, "TRACE", "PROPFIND", "WEBSOCKET"]:
        refused = 403 if method == "WEBSOCKET" else 405
        expected = (101 if method == "WEBSOCKET" else 200) if method in methods else refused
        assert ask(Gate(behind), path, method).status == expected, method


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/api",
        "//studio/",
        "/studio/new",
        "/studio.",
        "/boards",
        "/studio/gradio_api/new",
        "/studio/gradio_api/vibe-edit/",
        "/studio/gradio_api/proxy=http://x",
        "/studio/monitoring/summary",
        "/board/_stcore/new",
        "/board/_stcore/agent/mcp",
    ],
)
def test_a_path_without_an_open_row_is_refused(path: str) -> None:
    for method in METHODS:
        assert ask(Gate(behind), path, method).status == 404, method
    assert ask(Gate(behind), path, "WEBSOCKET").status == 403


@pytest.mark.parametrize(
    "path",
    [
        "/studio/../healthz",
        "/studio/static/%2e%2e/%2e%2e/etc/passwd",
        "/board/static/..%2f..%2fetc/passwd",
        "/board/..%5c..%5cwindows",
        "/studio/static/%5c%5cevil.test%5cshare",
        "/studio/static/a%00.css",
        "/studio/static/a%0d%0aSet-Cookie:x",
        "/studio/gradio_api/file=/tmp/../etc/passwd",
    ],
)
def test_crooked_paths_are_refused(path: str) -> None:
    assert ask(Gate(behind), path).status == 400


@pytest.mark.parametrize("name", ["http://evil.test/a.wav", "https://169.254.169.254/", "HTTP:/x", "ftp://x", "a.wav", ""])
def test_files_are_never_fetched_from_elsewhere(name: str) -> None:
    assert ask(Gate(behind), f"/studio/gradio_api/file={name}").status == 403
    assert ask(Gate(behind), "/studio/gradio_api/file=/a/b.wav").status == 200


@pytest.mark.parametrize(("path", "method"), [(UPLOAD, "POST"), (BOARD_UPLOAD, "PUT")])
def test_an_upload_is_stopped_where_it_grows_too_large(path: str, method: str) -> None:
    gate, limit, taken = Gate(behind, megabytes=1), 2**20 + 2**16, 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while taken < 4 * limit:
            taken += 2**14
            yield bytes(2**14)

    assert ask(gate, path, method, body=[bytes(limit)]).body == f"{limit} bytes"
    assert ask(gate, path, method, body=[bytes(limit), b"x"]).status == 413
    refused = ask(gate, path, method, body=endless())
    assert refused.status == 413 and "1 MB" in refused.body
    assert taken <= limit + 2**14, "It was read on after the limit."
    taken = 0
    for length in (str(limit + 1), "-1", "many"):
        assert ask(gate, path, method, body=endless(), content_length=length).status == 413
    assert taken == 0, "A body that says it is too large was read."


def test_what_is_no_upload_has_no_allowance() -> None:
    assert ask(Gate(behind, megabytes=1), JOIN, "POST", body=[bytes(2**20)]).status == 200
    assert ask(Gate(behind, megabytes=1), JOIN, "POST", body=[bytes(2**20), b"x"]).status == 413
    assert ask(Gate(behind, megabytes=1000), JOIN, "POST", body=[bytes(2**20)] * 17).status == 413


@pytest.mark.parametrize("path", ["/healthz", "/studio/", "/nothing"])
def test_every_answer_tells_browsers_to_be_strict(path: str) -> None:
    said = ask(Gate(behind), path).headers
    assert said["x-content-type-options"] == "nosniff"
    assert said["referrer-policy"] == "no-referrer"
    assert said["cross-origin-resource-policy"] == "same-origin"
    assert said["content-security-policy"] == "frame-ancestors 'self'"


def enter(gate: Gate) -> str:
    """The cookie that the token is swapped for."""
    return ask(gate, f"/studio/?token={TOKEN.replace(' ', '+')}").headers["set-cookie"].partition(";")[0]


def test_without_the_token_nothing_is_served() -> None:
    gate = Gate(behind, token=TOKEN)
    for path in ("/", "/studio/", "/studio/config", "/board/", "/board/_stcore/health"):
        said = ask(gate, path)
        assert said.status == 401 and "token" in said.body
    assert ask(gate, JOIN, "POST", origin=ORIGIN).status == 401
    assert ask(gate, STREAM, "WEBSOCKET", origin=ORIGIN).status == 403
    assert ask(gate, "/healthz").status == 200


def test_the_token_in_an_address_is_swapped_for_a_cookie() -> None:
    gate = Gate(behind, token=TOKEN)
    said = ask(gate, f"/studio/?page=jobs&token={TOKEN.replace(' ', '%20')}&x=a%26b")
    assert said.status == 303
    assert said.headers["location"] == "/studio/?page=jobs&x=a%26b"
    assert said.headers["cache-control"] == "no-store"
    cookie = said.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Path=/" in cookie
    assert TOKEN not in cookie and "secret" not in cookie
    held = cookie.partition(";")[0]
    assert ask(gate, "/studio/", cookie=held).status == 200
    assert ask(gate, "/studio/", cookie=f"other=1; {held}; more=2").status == 200
    assert ask(gate, JOIN, "POST", cookie=held, origin=ORIGIN).status == 200
    assert ask(gate, STREAM, "WEBSOCKET", cookie=held, origin=ORIGIN).status == 101
    # A change with a cookie but without an origin comes from no browser page of ours.
    assert ask(gate, JOIN, "POST", cookie=held).status == 403
    assert ask(gate, STREAM, "WEBSOCKET", cookie=held).status == 403
    # The same token makes the same cookie after a restart; another token does not take it.
    assert ask(Gate(behind, token=TOKEN), "/studio/", cookie=held).status == 200
    assert ask(Gate(behind, token="another"), "/studio/", cookie=held).status == 401


def test_a_token_does_not_pass_in_an_address_of_a_change_or_a_socket() -> None:
    gate = Gate(behind, token=TOKEN)
    word = TOKEN.replace(" ", "+")
    assert ask(gate, f"{JOIN}?token={word}", "POST", origin=ORIGIN).status == 401
    assert ask(gate, f"{STREAM}?token={word}", "WEBSOCKET", origin=ORIGIN).status == 403


@pytest.mark.parametrize("path", ["//evil.test/", "/%5cevil.test/", "/%2fevil.test", "///evil.test"])
def test_the_swap_never_leads_to_another_site(path: str) -> None:
    said = ask(Gate(behind, token=TOKEN), f"{path}?token={TOKEN.replace(' ', '+')}")
    assert said.status in {400, 404} and "location" not in said.headers


def test_programs_give_the_token_as_bearer() -> None:
    gate = Gate(behind, token=TOKEN)
    assert ask(gate, JOIN, "POST", authorization=f"Bearer {TOKEN}").status == 200
    assert ask(gate, STREAM, "WEBSOCKET", authorization=f"bearer {TOKEN}").status == 101
    for wrong in ("Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \u00e9"):
        assert ask(gate, JOIN, "POST", authorization=wrong).status == 401, wrong


@pytest.mark.parametrize("way", ["address", "bearer", "cookie"])
def test_guessing_is_stopped_after_ten_tries_a_minute(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    gate = Gate(behind, token=TOKEN)
    name = enter(gate).partition("=")[0]

    def guess(number: int, address: str) -> int:
        if way == "address":
            return ask(gate, f"/studio/?token=guess{number}", address=address).status
        if way == "bearer":
            return ask(gate, "/studio/", address=address, authorization=f"Bearer guess{number}").status
        return ask(gate, "/studio/", address=address, cookie=f"{name}=guess{number}").status

    answers = [guess(number, "10.0.0.66") for number in range(100)]
    assert answers == [401] * TRIES_A_MINUTE + [429] * (100 - TRIES_A_MINUTE)
    # Someone else is not shut out, and the guesser may try again when a minute has passed.
    assert guess(0, "10.0.0.5") == 401
    now += 61
    assert guess(0, "10.0.0.66") == 401
    assert ask(gate, "/studio/", address="10.0.0.66", authorization=f"Bearer {TOKEN}").status == 200


def test_a_wrong_cookie_is_taken_away() -> None:
    gate = Gate(behind, token=TOKEN)
    name = enter(gate).partition("=")[0]
    said = ask(gate, "/studio/", cookie=f"{name}=old")
    assert said.status == 401 and "Max-Age=0" in said.headers["set-cookie"]
