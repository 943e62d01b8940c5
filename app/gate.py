"""The one gate before every mount: who may ask what, checked on each request and web socket.

A request passes when its Host is ours, its Origin is none or ours, its path and method have a row in `app.routes`, it
carries the token where one is set, and its body is not too large. Whatever has no row is refused.
"""

import hashlib
import hmac
import ipaddress
import time
from collections import deque
from collections.abc import Iterable
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.routes import FILES, READ, SOCKET, policy_of

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
TRIES_A_MINUTE = 10
_JSON_BYTES = 16 * 2**20  # largest body of a request that is no upload
_FORM_BYTES = 64 * 2**10  # what a multipart form adds to the file in it


class Gate:
    """ASGI middleware around everything that is served."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        names: Iterable[str] = LOCAL_NAMES,
        is_public: bool = False,
        token: str = "",
        megabytes: int = 100,
    ) -> None:
        self.app = app
        self.names = frozenset(names)  # what a Host header may say, ports apart
        self.is_public = is_public  # reachable from other machines: then its numeric addresses are its names too
        self.token = token
        self.upload_bytes = megabytes * 2**20
        # The cookie is made from the token, so that it outlives a restart, and the token cannot be read out of it.
        self._pass = hmac.new(token.encode(), b"auscult cookie", hashlib.sha256).hexdigest() if token else ""
        # Browsers do not tell ports apart when they send cookies; two servers on one machine must not sign each other out.
        self._cookie = f"auscult-{hashlib.sha256(self._pass.encode()).hexdigest()[:8]}"
        self._failures: dict[str, deque[float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refuse(scope, headers)
        if scope["type"] == "websocket":
            if refusal is None:
                await self.app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        send = _with_headers(send)
        if refusal is None:
            policy = policy_of(scope["path"])
            limit = self.upload_bytes + _FORM_BYTES if policy and policy.is_upload else min(self.upload_bytes, _JSON_BYTES)
            await self._pass_on(scope, receive, send, headers, limit)
        else:
            await refusal(scope, receive, send)

    def _refuse(self, scope: Scope, headers: Headers) -> Response | None:
        """Why this request does not pass; None when it does."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return PlainTextResponse("This address is not served here.", 403)
        origins = headers.getlist("origin")
        if any(not self._is_same(origin, hosts[0]) for origin in origins):
            return PlainTextResponse("Another site may not ask here.", 403)
        path, method = scope["path"], scope.get("method", "WEBSOCKET")
        if _is_crooked(path):
            return PlainTextResponse("This path is not served.", 400)
        policy = policy_of(path)
        if policy is None or not policy.methods:
            return PlainTextResponse("There is nothing here.", 404)
        if method not in policy.methods:
            return PlainTextResponse("This cannot be done here.", 405, {"Allow": ", ".join(sorted(policy.methods - SOCKET))})
        if path.startswith(FILES) and not path.startswith(f"{FILES}/"):
            return PlainTextResponse("Files of other machines are not fetched.", 403)
        if self.token and not policy.is_open:
            return self._check_token(scope, headers, bool(origins))
        return None

    def _check_token(self, scope: Scope, headers: Headers, has_origin: bool) -> Response | None:
        address = scope["client"][0] if scope.get("client") else ""
        failures = self._recent_failures(address)
        if len(failures) >= TRIES_A_MINUTE:
            return PlainTextResponse("Too many wrong tokens from here; wait a minute.", 429, {"Retry-After": "60"})
        method = scope.get("method", "WEBSOCKET")
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            if _same(bearer.strip(), self.token):
                return None
            failures.append(time.monotonic())
            return PlainTextResponse("This token is wrong.", 401, {"WWW-Authenticate": "Bearer"})
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        asked = [value for name, value in query if name == "token"]
        if asked and method == "GET":
            if not _same(asked[0], self.token):
                failures.append(time.monotonic())
                return _ask("This token is wrong.")
            # Our own path only: a path that begins with two slashes would be another site's.
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            place = "/" + quote(scope["path"].lstrip("/\\"))
            answer = RedirectResponse(f"{place}?{rest}" if rest else place, 303, {"Cache-Control": "no-store"})
            answer.set_cookie(self._cookie, self._pass, httponly=True, samesite="lax", secure=scope["scheme"] == "https")
            return answer
        held = cookie_parser(headers.get("cookie", "")).get(self._cookie)
        if held is None:
            return _ask("")
        if not _same(held, self._pass):
            failures.append(time.monotonic())
            refusal = _ask("")
            refusal.delete_cookie(self._cookie)
            return refusal
        if method not in READ and not has_origin:
            # A browser names its origin whenever it changes something; with a cookie alone this is no request of our pages.
            return PlainTextResponse("A change must say where it comes from.", 403)
        return None

    def _recent_failures(self, address: str) -> deque[float]:
        now = time.monotonic()
        if len(self._failures) > 1000:
            self._failures = {known: times for known, times in self._failures.items() if times and now - times[-1] < 60}
        failures = self._failures.setdefault(address, deque(maxlen=TRIES_A_MINUTE))
        while failures and now - failures[0] >= 60:
            failures.popleft()
        return failures

    def _is_ours(self, host: str) -> bool:
        name, port = _split(host)
        if name is None or (port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)):
            return False
        return name in self.names or (self.is_public and _is_numeric(name))

    @staticmethod
    def _is_same(origin: str, host: str) -> bool:
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        if parts.scheme not in {"http", "https"} or parts.path or parts.query or parts.fragment or not parts.netloc:
            return False
        default = f":{80 if parts.scheme == 'http' else 443}"
        return parts.netloc.lower().removesuffix(default) == host.lower().removesuffix(default)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, headers: Headers, limit: int) -> None:
        """Let a request through, and stop it when its body grows beyond the limit."""
        refusal = PlainTextResponse(
            f"Too large: at most {limit // 2**20} MB can be sent here.", 413, {"Connection": "close"}
        )
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > limit:
            await refusal(scope, receive, send)
            return
        received, is_started = 0, False

        async def count() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return {"type": "http.disconnect"} if received > limit else message

        async def answer(message: Message) -> None:
            nonlocal is_started
            if received <= limit:
                is_started = True
                await send(message)

        try:
            await self.app(scope, count, answer)
        except Exception:
            if received <= limit:
                raise
        if received > limit and not is_started:
            await refusal(scope, receive, send)


def _with_headers(send: Send) -> Send:
    """Whatever is answered tells browsers to be strict."""

    async def secured(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Referrer-Policy"] = "no-referrer"
            headers["Cross-Origin-Resource-Policy"] = "same-origin"
            headers.append("Content-Security-Policy", "frame-ancestors 'self'")
        await send(message)

    return secured


def _split(host: str) -> tuple[str | None, str]:
    """The name and the port of a Host header; no name when it is not one."""
    host = host.lower()
    if host.startswith("["):
        name, bracket, rest = host.partition("]")
        return (name + bracket, rest[1:]) if bracket and rest[:1] in {"", ":"} and rest != ":" else (None, "")
    name, colon, port = host.partition(":")
    return (name, port) if name and bool(colon) == bool(port) else (None, "")


def _is_numeric(name: str) -> bool:
    # Another site's name can be made to point at us; a numeric address cannot.
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _is_crooked(path: str) -> bool:
    return ".." in path.split("/") or any(character in path for character in "\\\0\r\n")


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())


def _ask(sentence: str) -> Response:
    said = sentence or "Open the address that was printed at its start, or give the token here."
    return HTMLResponse(
        "<!doctype html><title>Auscult</title><body style='font-family:sans-serif;margin:4rem'>"
        f"<h1>This Auscult asks for a token</h1><p>{said}</p>"
        "<form><input name=token type=password autofocus aria-label=Token> <button>Open</button></form>",
        401,
        {"Cache-Control": "no-store"},
    )
