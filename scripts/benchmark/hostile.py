"""Loads that one consumer puts on a hub for the length of a block, as heavy as the hub allows.

The loads themselves use almost no processor: ``h2load`` makes calls and repeats each as soon as
it is answered, and a process of its own reads replies slowly or not at all
(``benchmark.slow_reader``).
"""

from __future__ import annotations

import contextlib
import gzip
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from harness import RunningHub, eventually

#: The sizes of the loads. Smaller ones only test that the part works.
LISTS = int(os.environ.get("PENSTOCK_BENCH_LISTS", "2000"))
PULLS = int(os.environ.get("PENSTOCK_BENCH_PULLS", "150"))
EXPORTS = int(os.environ.get("PENSTOCK_BENCH_EXPORTS", "20"))
READERS = int(os.environ.get("PENSTOCK_BENCH_READERS", "70"))
ROWS = int(os.environ.get("PENSTOCK_BENCH_HOSTILE_ROWS", "1000000"))
#: Concurrent uploads.
IMPORTS = 4
#: Bytes a second that each slow export reads: far less than it could get.
SLOWLY = 64 * 1024
CONSUMER = "crm"

#: A load that runs for the length of a block.
Load = Callable[[RunningHub], AbstractContextManager[None]]

_RUNNING = "SELECT count(*) FROM hub.receipt WHERE state = 'RUNNING' AND consumer_id = $1"
_WAITING = (
    "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'data.customers'::regclass"
)


def bursts_of_lists(hub: RunningHub) -> AbstractContextManager[None]:
    """Lists of 500 records, LISTS of them in progress at any time."""
    clients = max(1, LISTS // 100)
    return _called(hub, "/v1/customers?page_size=500", clients, LISTS // clients)


@contextmanager
def waiting_pulls(hub: RunningHub) -> Iterator[None]:
    """PULLS calls of one subscription that wait for changes, at any time."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    body = {"subscription": {"subscriptionId": name, "datasets": ["customers"]}, "start": "now"}
    made = hub.request("POST", "/v1/subscriptions", consumer=CONSUMER, json_body=body)
    assert made.status == 200, made.text
    pull = b'{"wait": "5s"}'
    with _called(hub, f"/v1/subscriptions/{name}:pull", PULLS, body=pull, kind="application/json"):
        yield
    gone = hub.request("DELETE", f"/v1/subscriptions/{name}", consumer=CONSUMER)
    assert gone.status == 200, gone.text


def hostile_imports(hub: RunningHub) -> AbstractContextManager[None]:
    """Uploads of some kilobytes that unpack to ROWS equal rows, all but one of them refused."""
    file = gzip.compress(b"customer_id,name\n" + b"bench-hostile,x\n" * ROWS)
    path = "/v1/customers:import?format=CSV&partial=true&validate_only=true"
    return _called(hub, path, IMPORTS, body=file, kind="text/csv", early=True)


@contextmanager
def locked_readers(hub: RunningHub) -> Iterator[None]:
    """READERS of a dataset whose table another session keeps locked."""
    lock = "BEGIN; LOCK TABLE data.customers IN ACCESS EXCLUSIVE MODE"
    path = "/v1/customers?page_size=1"
    with hub.holding(lock), _called(hub, path, READERS, early=True):
        eventually(lambda: hub.sql(_WAITING)[0][0] > 0)
        yield


def stalled_exports(hub: RunningHub) -> AbstractContextManager[None]:
    """EXPORTS whose output nobody reads; those beyond a share wait for it."""
    return _exports(hub, 0)


def slow_exports(hub: RunningHub) -> AbstractContextManager[None]:
    """EXPORTS that are read at SLOWLY bytes a second, and requested again when they end."""
    return _exports(hub, SLOWLY)


LOADS: dict[str, Load] = {
    f"{LISTS:,} lists of 500 under way": bursts_of_lists,
    f"{PULLS} waiting pulls": waiting_pulls,
    f"{EXPORTS} stalled exports": stalled_exports,
    f"{EXPORTS} slow exports": slow_exports,
    f"{IMPORTS} imports of {ROWS:,} equal rows": hostile_imports,
    f"{READERS} readers of a locked table": locked_readers,
}


@contextmanager
def _exports(hub: RunningHub, rate: int) -> Iterator[None]:
    url = f"{hub.url}/v1/customers:export?format=XML"
    command = [sys.executable, "-m", "benchmark.slow_reader", url, str(EXPORTS), str(rate)]
    with _running(command, env={**os.environ, "TOKEN": hub.token(CONSUMER)}):
        eventually(lambda: hub.sql(_RUNNING, CONSUMER)[0][0] > 0)
        yield
    eventually(lambda: hub.sql(_RUNNING, CONSUMER)[0][0] == 0)


@contextmanager
def _called(
    hub: RunningHub,
    path: str,
    clients: int,
    streams: int = 1,
    *,
    body: bytes = b"",
    kind: str = "",
    early: bool = False,
) -> Iterator[None]:
    """Calls over so many connections, so many at a time on each; a POST if it has a body.

    Returns when the first has been answered; ``early`` returns at once, for calls that take long.
    """
    headers = [f"authorization: Bearer {hub.token(CONSUMER)}"]
    command = ["h2load", "-D", "36000", "-c", str(clients), "-m", str(max(1, streams))]
    with contextlib.ExitStack() as stack:
        if body:
            file = stack.enter_context(tempfile.NamedTemporaryFile("wb"))
            file.write(body)
            file.flush()
            headers.append(f"content-type: {kind}")
            command += ["-d", file.name]
        for header in headers:
            command += ["-H", header]
        before = _answered(hub)
        stack.enter_context(_running([*command, f"{hub.url}{path}"]))
        if not early:
            eventually(lambda: _answered(hub) > before)
        yield


@contextmanager
def _running(command: list[str], env: dict[str, str] | None = None) -> Iterator[None]:
    """A process that must not end before the block does."""
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
        assert process.poll() is None, f"{command[0]} ended before the measurement"
    finally:
        process.kill()
        process.wait()


def _answered(hub: RunningHub) -> int:
    """How many calls of the hostile consumer are in the audit."""
    query = "SELECT count(*) FROM hub.audit_entry WHERE consumer_id = $1"
    return int(hub.sql(query, CONSUMER)[0][0])
