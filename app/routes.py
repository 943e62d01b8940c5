"""What may be asked of this server: one row for each path, of ours and of what Gradio and Streamlit bring along.

Whatever has no row is refused, so that a route which a new version brings is closed until someone has thought about it;
a test walks all routes and finds those.
"""

from dataclasses import dataclass

READ = frozenset({"GET", "HEAD"})
POST = frozenset({"POST"})
SOCKET = frozenset({"WEBSOCKET"})
NOTHING = frozenset[str]()


@dataclass(frozen=True)
class Policy:
    """What may be done to a path."""

    methods: frozenset[str]
    is_open: bool = False  # answers without a token
    is_upload: bool = False  # its body may be as large as an upload


_API = "/studio/gradio_api/"
FILES = f"{_API}file="  # what follows is the whole path of a file that Gradio was told it may serve
_CORE = "/board/_stcore/"

# Path -> policy; a path that ends with * stands for everything that begins so, and the longest one that fits counts.
POLICIES = {
    "/": Policy(READ),
    "/healthz": Policy(READ, is_open=True),
    "/favicon.ico": Policy(READ, is_open=True),
    # Gradio's pages and their parts
    "/studio": Policy(READ),
    "/studio/config": Policy(READ),
    "/studio/theme.css": Policy(READ),
    "/studio/favicon.ico": Policy(READ),
    "/studio/manifest.json": Policy(READ),
    "/studio/robots.txt": Policy(READ),
    "/studio/pwa_icon*": Policy(READ),
    "/studio/static/*": Policy(READ),
    "/studio/assets/*": Policy(READ),
    "/studio/svelte/*": Policy(READ),
    f"{_API}theme.css": Policy(READ),
    f"{_API}info": Policy(READ),
    f"{_API}app_id": Policy(READ),
    f"{_API}startup-events": Policy(READ),
    f"{_API}heartbeat/*": Policy(READ),
    f"{_API}queue/join": Policy(POST),
    f"{_API}queue/data": Policy(READ),
    f"{_API}queue/status": Policy(READ),
    f"{_API}run/*": Policy(POST),
    f"{_API}cancel": Policy(POST),
    f"{_API}reset": Policy(POST),
    f"{_API}component_server": Policy(POST),
    f"{_API}upload": Policy(POST, is_upload=True),
    f"{_API}upload_progress": Policy(READ),
    f"{FILES}*": Policy(READ),
    # Gradio's doors that nothing here goes through: its own login, dashboards, a code editor for the app, fetching from
    # elsewhere, a second way to call events, and ffmpeg on what a browser sends.
    "/studio/login": Policy(NOTHING),
    "/studio/logout": Policy(NOTHING),
    "/studio/monitoring*": Policy(NOTHING),
    "/studio/openapi.json": Policy(NOTHING),
    f"{_API}api/*": Policy(NOTHING),
    f"{_API}call/*": Policy(NOTHING),
    f"{_API}custom_component/*": Policy(NOTHING),
    f"{_API}deep_link": Policy(NOTHING),
    f"{_API}dev/*": Policy(NOTHING),
    f"{_API}file/*": Policy(NOTHING),
    f"{_API}login_check": Policy(NOTHING),
    f"{_API}openapi.json": Policy(NOTHING),
    f"{_API}process_recording": Policy(NOTHING),
    f"{_API}profiling/*": Policy(NOTHING),
    f"{_API}proxy=*": Policy(NOTHING),
    f"{_API}run-history/*": Policy(NOTHING),
    f"{_API}runs": Policy(NOTHING),
    f"{_API}stream/*": Policy(NOTHING),
    f"{_API}token": Policy(NOTHING),
    f"{_API}undo-vibe-edit": Policy(NOTHING),
    f"{_API}user": Policy(NOTHING),
    f"{_API}vibe-*": Policy(NOTHING),
    # Streamlit: any other path under /board is a page of its single-page app
    "/board": Policy(READ),
    "/board/*": Policy(READ),
    "/board/component/*": Policy(READ),
    "/board/media/*": Policy(READ),
    "/board/static/*": Policy(READ),
    f"{_CORE}*": Policy(NOTHING),
    f"{_CORE}bidi-components/*": Policy(READ),
    f"{_CORE}health": Policy(READ),
    f"{_CORE}host-config": Policy(READ),
    f"{_CORE}stream": Policy(SOCKET),
    f"{_CORE}upload_file/*": Policy(frozenset({"PUT", "DELETE"}), is_upload=True),
    # Streamlit's doors that nothing here goes through
    f"{_CORE}agent/*": Policy(NOTHING),
    f"{_CORE}metrics": Policy(NOTHING),
    "/board/auth/*": Policy(NOTHING),
    "/board/oauth2callback": Policy(NOTHING),
}
_PREFIXES = sorted((path[:-1] for path in POLICIES if path.endswith("*")), key=len, reverse=True)


def policy_of(path: str) -> Policy | None:
    """The row for a path, or None where there is none."""
    plain = path.rstrip("/") or "/"
    if plain in POLICIES:
        return POLICIES[plain]
    for prefix in _PREFIXES:
        if path.startswith(prefix):
            return POLICIES[f"{prefix}*"]
    return None
