"""What a caller notices of another consumer that asks for all it can get: its p99 beside to alone.

The load is made by processes and sockets that take next to nothing of the processor themselves:
``h2load`` and connections that nobody reads.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import statistics
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from benchmark.database import wait_until_quiet
from benchmark.table import Row
from harness import RunningHub, eventually

#: The sizes of the three loads. Smaller ones try the part out and say nothing.
LISTS = int(os.environ.get("PENSTOCK_BENCH_LISTS", "2000"))
PULLS = int(os.environ.get("PENSTOCK_BENCH_PULLS", "150"))
EXPORTS = int(os.environ.get("PENSTOCK_BENCH_EXPORTS", "20"))
#: GETs whose latencies are looked at, the pause between two, and what comes before the first.
CALLS = int(os.environ.get("PENSTOCK_BENCH_CALLS", "800"))
_PAUSE, _WARM = 0.005, 50
HOSTILE, VICTIM = "crm", "bi"
DEMAND = 1.5

#: A load that runs for the length of a block.
Load = Callable[[RunningHub], contextlib.AbstractContextManager[None]]


def measure(hub: RunningHub, rows: int, rounds: int) -> list[Row]:
    """All in turn, so that they see the same machine; each beside is to the alone of its round."""
    wait_until_quiet(hub)
    loads: dict[str, Load] = {
        f"{LISTS:,} lists of 500 at once, again and again": bursts_of_lists,
        f"{PULLS} waiting pulls": waiting_pulls,
        f"{EXPORTS} stalled exports": stalled_exports,
    }
    alone: list[float] = []
    ratios: dict[str, list[float]] = {name: [] for name in loads}
    for _ in range(rounds):
        alone.append(percentile(hub))
        for name, load in loads.items():
            with load(hub):
                ratios[name].append(percentile(hub) / alone[-1])
    found = [
        Row(
            f"GET p99 beside another consumer's {name}, to alone",
            statistics.median(each),
            "",
            DEMAND,
            at_most=True,
            note=f"rounds {', '.join(f'{r:.2f}' for r in each)}",
        )
        for name, each in ratios.items()
    ]
    return [*found, Row("GET p99 alone", statistics.median(alone) * 1000, "ms")]


def percentile(hub: RunningHub) -> float:
    """The 99th percentile of the victim's GETs, one at a time, in seconds."""
    place = urlsplit(hub.url)
    headers = {"authorization": f"Bearer {hub.token(VICTIM)}"}
    (record,) = hub.get("/v1/customers", VICTIM, pageSize=1).json()["customers"]
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=120)
    seconds = []
    with contextlib.closing(connection):
        for _ in range(CALLS + _WARM):
            start = time.perf_counter()
            connection.request("GET", f"/v1/customers/{record['customerId']}", headers=headers)
            reply = connection.getresponse()
            told = reply.read()
            seconds.append(time.perf_counter() - start)
            assert reply.status == 200, told
            # A caller's own pace: back to back, one connection would measure throughput.
            time.sleep(_PAUSE)
    return statistics.quantiles(seconds[_WARM:], n=100)[98]


@contextlib.contextmanager
def bursts_of_lists(hub: RunningHub) -> Iterator[None]:
    """Lists of 500 records, LISTS of them under way at any time, as long as the block takes."""
    clients = max(1, LISTS // 100)
    command = ["h2load", "-D", "3600", "-c", str(clients), "-m", str(max(1, LISTS // clients))]
    authorization = f"authorization: Bearer {hub.token(HOSTILE)}"
    url = f"{hub.url}/v1/customers?page_size=500"
    process = subprocess.Popen(
        [*command, "-H", authorization, url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _until_entries(hub, "ListCustomers")
        yield
        assert process.poll() is None, "h2load has ended before the measurement"
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def waiting_pulls(hub: RunningHub) -> Iterator[None]:
    """Pulls of one subscription that wait for changes, each asked anew when it is answered."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    body = {"subscription": {"subscriptionId": name, "datasets": ["customers"]}, "start": "now"}
    made = hub.request("POST", "/v1/subscriptions", consumer=HOSTILE, json_body=body)
    assert made.status == 200, made.text
    # Longer than any measurement of the usual size: a pull that ends has waited all that time.
    asked = b'{"wait": "25s"}'
    with _sent(hub, f"POST /v1/subscriptions/{name}:pull", PULLS, asked):
        yield
    gone = hub.request("DELETE", f"/v1/subscriptions/{name}", consumer=HOSTILE)
    assert gone.status == 200, gone.text


@contextlib.contextmanager
def stalled_exports(hub: RunningHub) -> Iterator[None]:
    """Exports of which nobody takes what they send; those beyond a share wait for it."""
    running = "SELECT count(*) FROM hub.receipt WHERE state = 'RUNNING' AND consumer_id = $1"
    with _sent(hub, "GET /v1/customers:export?format=XML", EXPORTS):
        eventually(lambda: hub.sql(running, HOSTILE)[0][0] > 0)
        yield


@contextlib.contextmanager
def _sent(hub: RunningHub, line: str, count: int, body: bytes = b"") -> Iterator[None]:
    """So many requests on connections of their own, whose replies nobody reads."""
    head = (
        f"{line} HTTP/1.1\r\nhost: hub\r\nauthorization: Bearer {hub.token(HOSTILE)}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            made = stack.enter_context(socket.socket())
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            made.connect(("127.0.0.1", hub.port))
            made.sendall(head.encode() + body)
        yield


def _until_entries(hub: RunningHub, method: str) -> None:
    """Return when the hostile consumer has been answered: its load has begun."""
    query = (
        "SELECT count(*) FROM hub.audit_entry WHERE consumer_id = $1"
        " AND method LIKE '%/' || $2 AND entry_time > now() - interval '10 seconds'"
    )
    eventually(lambda: hub.sql(query, HOSTILE, method)[0][0] > 0)
