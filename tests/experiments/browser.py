"""Chromium without a window, off line, with a profile of its own; what it complains about is kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip

PATIENCE_MS = 240_000  # the machine may be busy


def chromium() -> str:
    """Path of a Chromium; without one the test is skipped, or fails where HWSIM_NEEDS_BROWSER is set (as in CI)."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        reason = f"no browser: none of {', '.join(NAMES)} is on the PATH (Debian: apt-get install chromium)"
        (pytest.fail if os.environ.get("HWSIM_NEEDS_BROWSER") else pytest.skip)(reason)
    return str(found)


@contextmanager
def opened(page_file: Path, profile: Path) -> Iterator[tuple[Any, list[str]]]:
    """The page, drawn; and a list that collects messages, errors and requests to anywhere but the page itself."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = chromium()
    complaints: list[str] = []
    with playwright.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            profile, executable_path=path, headless=True, args=FLAGS, offline=True,
            viewport={"width": 1500, "height": 1000}, timeout=PATIENCE_MS,
        )  # fmt: skip
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on(
            "request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else complaints.append(r.url)
        )
        page.goto(page_file.as_uri())
        page.wait_for_selector("body[data-drawn]")
        yield page, complaints
        context.close()
