"""Both front ends work through the gate, in a real browser."""

import json
import urllib.error
import urllib.request
from typing import Any

import pytest


def test_studio_is_drawn_from_the_one_address(page: Any) -> None:
    page.goto("/")
    page.wait_for_selector("#pages", timeout=30_000)
    assert page.url.split("?")[0].endswith("/studio/")
    # What Gradio would otherwise show or tell.
    assert page.get_by_text("Use via API").count() == 0


def test_board_is_drawn_over_its_web_socket(page: Any) -> None:
    with page.expect_websocket(lambda socket: socket.url.endswith("/board/_stcore/stream")):
        page.goto("/board/")
    page.wait_for_selector("a[href='/studio/']", timeout=30_000)
    assert page.get_by_text("Deploy", exact=True).count() == 0


def test_another_site_cannot_reach_in(page: Any, server: Any, complaints: Any) -> None:
    """A page of another origin that knows the address can neither read, nor post, nor open the web socket."""
    complaints.allowed += ["console: ", "outside: "]
    page.route("http://elsewhere.test/", lambda route: route.fulfill(body="elsewhere", content_type="text/html"))
    page.goto("http://elsewhere.test/")
    outcome = page.evaluate(
        """async (address) => {
            const said = {};
            const tell = async (name, ask) => {
                try { said[name] = (await ask()).status; } catch { said[name] = 'refused'; }
            };
            await tell('read', () => fetch(address + '/studio/config'));
            await tell('post', () => fetch(address + '/studio/gradio_api/queue/join', {method: 'POST', body: '{}'}));
            await tell('image', () => new Promise((resolve, reject) => {
                const image = new Image();
                image.onload = () => resolve({status: 'drawn'});
                image.onerror = reject;
                image.src = address + '/favicon.ico';
            }));
            said.socket = await new Promise((resolve) => {
                const socket = new WebSocket(address.replace('http', 'ws') + '/board/_stcore/stream');
                socket.onopen = () => resolve('open');
                socket.onerror = () => resolve('refused');
            });
            return said;
        }""",
        server.address,
    )
    assert outcome == {"read": "refused", "post": "refused", "image": "refused", "socket": "refused"}


@pytest.mark.parametrize(
    "path", ["/studio/gradio_api/vibe-edit", "/studio/monitoring", "/board/_stcore/agent/mcp", "/metrics"]
)
def test_doors_that_nothing_uses_are_closed(server: Any, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{server.address}{path}", timeout=10)
    with refused.value:
        assert refused.value.code == 404


def test_files_outside_the_public_folders_are_not_served(server: Any) -> None:
    secret = server.workspace / "jobs" / "secret.txt"
    secret.parent.mkdir(parents=True, exist_ok=True)
    secret.write_text("canary")
    for name in (str(secret), "/etc/hostname", f"{server.workspace}/uploads/../jobs/secret.txt", f"/%2e%2e{secret}"):
        try:
            with urllib.request.urlopen(f"{server.address}/studio/gradio_api/file={name}", timeout=10) as answer:
                body = answer.read()
        except urllib.error.HTTPError as refused:
            with refused:
                assert refused.code in {400, 403, 404}
                body = refused.read()
        assert b"canary" not in body


def test_nothing_is_shared_or_recorded(server: Any) -> None:
    with urllib.request.urlopen(f"{server.address}/studio/config", timeout=10) as answer:
        config = json.load(answer)
    assert not config.get("analytics_enabled")
    assert not config.get("run_history")
