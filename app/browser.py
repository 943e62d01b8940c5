"""Finds a Chromium to test with, or gets one."""

import glob
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
_PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "~/.cache/ms-playwright/chromium-*/chrome-linux*/chrome",
    "~/Library/Caches/ms-playwright/chromium-*/chrome-mac*/*.app/Contents/MacOS/*",
    "~/AppData/Local/ms-playwright/chromium-*/chrome-win*/chrome.exe",
)


def find_browser() -> str:
    """The path of an installed Chromium or Chrome that starts; empty where there is none."""
    asked = os.environ.get("AUSCULT_BROWSER", "")
    found = [asked, *(shutil.which(name) or "" for name in _NAMES)]
    found += [path for place in _PLACES for path in sorted(glob.glob(os.path.expanduser(place)), reverse=True)]
    return next((path for path in found if path and _starts(path)), "")


def _starts(path: str) -> bool:
    # Ubuntu's /usr/bin/chromium-browser may be a note that says to install a snap.
    if sys.platform == "win32":
        return Path(path).exists()  # it opens a window there instead of saying its version
    try:
        return subprocess.run([path, "--version"], capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def get_browser(say: Callable[[str], None]) -> tuple[str, str]:
    """The path of a browser, fetched where none is installed; or an empty path and why there is none."""
    if found := find_browser():
        return found, ""
    tried = []
    for sentence, commands in _ways():
        say(sentence)
        failure = _carry_out(commands)
        if not failure and (found := find_browser()):
            return found, ""
        tried.append(f"{' '.join(commands[-1][-3:])}: {failure or 'it brought no browser that starts'}")
    return "", f"No Chromium or Chrome is installed and none could be fetched ({'; '.join(tried)})."


def _ways() -> list[tuple[str, list[list[str]]]]:
    ways = [("Fetching a Chromium for the browser tests.", [[sys.executable, "-m", "playwright", "install", "chromium"]])]
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        install = ["apt-get", "install", "-y", "--no-install-recommends", "chromium"]
        ways.append(("Installing the system's Chromium for the browser tests.", [["apt-get", "update"], install]))
    return ways


def _carry_out(commands: list[list[str]]) -> str:
    """Run commands one after the other; why it failed, or nothing."""
    for command in commands:
        try:
            settings = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            done = subprocess.run(command, env=settings, capture_output=True, text=True, errors="replace", timeout=600)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{type(error).__name__}"
        if done.returncode:
            lines = (done.stdout + done.stderr).strip().splitlines()
            return next((line.strip()[:120] for line in lines if "rror" in line or line.startswith("E:")), "it failed")
    return ""
