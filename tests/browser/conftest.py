"""A browser for the hub's console, and a receiver of webhooks."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from harness import PATIENCE, RunningHub
from posted import Posts, receiving

from .visiting import Console

expect.set_options(timeout=PATIENCE * 1000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for one module and not the session: while it runs, the thread has an event loop."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.fail("these tests need Chromium on the PATH: apt-get install --yes chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def posts() -> Iterator[Posts]:
    with receiving() as made:
        yield made


@pytest.fixture
def path() -> str:
    """A path to which no other test posts."""
    return f"/{uuid.uuid4().hex}"


@pytest.fixture
def console(hub: RunningHub, browser: Browser) -> Iterator[Console]:
    """The console at the page of webhooks, before a sign-in."""
    context = browser.new_context(locale="en-GB", timezone_id="UTC")
    context.set_default_timeout(PATIENCE * 1000)
    made = Console(context.new_page(), hub)
    made.listen()
    made.open("#/webhooks")
    yield made
    context.close()
    assert made.complaints == []
