"""R7: the database stops while the hub runs. Calls fail fast, and work again when it is back.

PENSTOCK_R7_SECONDS sets the length of the outage.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from faults.state import table_of
from faults.traffic import MOST_ROWS, Follower, Traffic
from faults.validator import FeedValidator
from harness import RunningHub, eventually, new_customer, promptly, signal_processes, timed
from penstockd.catalog import Catalog

pytestmark = pytest.mark.lane("faults/own_hub")

SECONDS = float(os.environ.get("PENSTOCK_R7_SECONDS", "8"))
ANSWERED_WITHIN = 2.0
RECOVERED_WITHIN = 5.0
CLIENTS = 6
CALLS: dict[str, tuple[str, str, dict[str, str] | None]] = {
    "get": ("GET", "/v1/customers/x", None),
    "list": ("GET", "/v1/customers", None),
    "export": ("GET", "/v1/customers:export?format=CSV", None),
    "create": ("POST", "/v1/customers", {"customerId": "outage", "name": "x"}),
    "import": ("POST", "/v1/customers:import?format=CSV", None),
}


@contextmanager
def frozen(hub: RunningHub) -> Iterator[None]:
    """Stop every process of PostgreSQL, so that it neither answers nor refuses."""
    server = hub.processes("postgres")
    sessions: list[psutil.Process] = []
    try:
        signal_processes(server, signal.SIGSTOP)  # kill it first, so that it starts no other
        sessions = [session for one in server for session in one.children()]
        signal_processes(sessions, signal.SIGSTOP)
        yield
    finally:
        signal_processes([*sessions, *server], signal.SIGCONT)


@contextmanager
def down(hub: RunningHub) -> Iterator[None]:
    """Stop PostgreSQL, and keep the guard from restarting it."""
    [supervisor] = hub.processes("supervisor")
    [postgres] = hub.processes("postgres")
    supervisor.send_signal(signal.SIGSTOP)
    try:
        postgres.send_signal(signal.SIGINT)
        eventually(lambda: postgres.status() == "zombie")
        yield
    finally:
        supervisor.send_signal(signal.SIGCONT)


def refused_calls(hub: RunningHub) -> float:
    """Check that every kind of call is answered UNAVAILABLE; returns the seconds of the slowest."""
    key = {"x-api-key": hub.api_key}
    slowest = 0.0
    for name, (method, path, body) in CALLS.items():
        raw = b"customer_id,name\nx,y\n" if name == "import" else None
        headers = {**key, "content-type": "text/csv"} if raw else key
        began = time.monotonic()
        reply = hub.request(method, path, headers=headers, json_body=body, body=raw)
        slowest = max(slowest, time.monotonic() - began)
        assert reply.status == 503, (name, reply.text)
        assert reply.json()["code"] == 14, (name, reply.text)  # UNAVAILABLE
    return slowest


def recovery(hub: RunningHub) -> float:
    """Seconds until reads and writes are served."""
    key = {"x-api-key": hub.api_key}

    def serves() -> bool:
        reply = hub.request("POST", "/v1/customers", headers=key, json_body=new_customer())
        return reply.status == 200

    served = timed(serves)
    eventually(lambda: hub.request("GET", "/healthz").status == 200)
    return served


def test_calls_are_refused_at_once_while_the_database_is_down(own_hub: RunningHub) -> None:
    def attempt() -> float:
        with down(own_hub):
            # While the hub discovers that its connections are broken.
            slowest = refused_calls(own_hub)
            eventually(lambda: own_hub.request("GET", "/healthz").status == 503)
            slowest = max(slowest, refused_calls(own_hub))
        recovered = recovery(own_hub)
        print(f"down: the slowest call took {slowest:.2f} s, served again after {recovered:.2f} s")
        return max(slowest / ANSWERED_WITHIN, recovered / RECOVERED_WITHIN)

    # As shares of the allowed time.
    promptly(1, attempt)


def test_calls_are_refused_once_a_database_is_found_to_hang(own_hub: RunningHub) -> None:
    def attempt() -> float:
        with frozen(own_hub):
            noticed = timed(lambda: own_hub.request("GET", "/healthz").status == 503)
            slowest = refused_calls(own_hub)
        recovered = recovery(own_hub)
        print(f"frozen: noticed after {noticed:.2f} s, served again after {recovered:.2f} s")
        # A call that ran at the discovery waits for a connection and for its audit entry.
        return max(noticed, slowest, recovered)

    promptly(RECOVERED_WITHIN, attempt)


async def test_an_outage_loses_nothing_that_was_acknowledged(
    catalog: Catalog, own_hub: RunningHub
) -> None:
    logs = {p: p.stat().st_size for p in (own_hub.data / "log").glob("worker-*.log")}
    after = await asyncio.to_thread(own_hub.head)
    validator = FeedValidator(catalog, after, await table_of(own_hub, catalog))
    follower = Follower(own_hub.dsn, validator)
    writing, reading = asyncio.Event(), asyncio.Event()
    writing.set()
    reading.set()
    async with Traffic(own_hub.url, own_hub.api_key, 1) as traffic, asyncio.TaskGroup() as group:
        reader = group.create_task(follower.follow(reading))
        clients = [group.create_task(traffic.client(i, writing)) for i in range(CLIENTS)]

        def outage() -> float:
            eventually(lambda: len(traffic.acked) > 300)
            with down(own_hub):
                acked = len(traffic.acked)
                time.sleep(SECONDS)  # the length of the outage
                again = len(traffic.acked)
                # Calls that ran at the start of the outage.
                assert again <= acked + CLIENTS * MOST_ROWS
            taken = timed(lambda: len(traffic.acked) > again)
            print(f"written again {taken:.2f} s after the database was back")
            eventually(lambda: len(traffic.acked) > again + 300)
            return taken

        await asyncio.to_thread(promptly, RECOVERED_WITHIN, outage)
        writing.clear()
        await asyncio.gather(*clients)
        await asyncio.to_thread(own_hub.head)
        reading.clear()
        await reader
    table = await table_of(own_hub, catalog)
    validator.finish(table, traffic.acked, [*traffic.acked, *traffic.unknown])
    validator.check()
    assert min(gaps_in_log(logs), default=1.0) > 0.5, "a process logs about one line a second"


def gaps_in_log(logs: Mapping[Path, int]) -> list[float]:
    """The seconds between log lines of one process about calls that failed because of the database,
    after given places in the logs."""
    gaps: list[float] = []
    for path, place in logs.items():
        text = path.read_bytes()[place:].decode()
        lines = [line for line in text.splitlines() if "database_unavailable" in line]
        times = [datetime.fromisoformat(json.loads(line)["timestamp"]) for line in lines]
        gaps += [(b - a).total_seconds() for a, b in pairwise(times)]
    return gaps
