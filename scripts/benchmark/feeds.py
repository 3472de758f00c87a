"""Feeds of changes through the sidecar: latency, rates, fan-out and idle streams.

Clients are processes of their own, which read messages as bytes and count their content. All
processes share the machine's monotonic clock.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from benchmark.database import wait_until_quiet
from benchmark.processes import usage
from benchmark.table import Row
from harness import RunningHub, eventually
from penstock.api.v1 import customers_service_pb2 as api
from penstock.api.v1.customers_service_pb2_grpc import CustomersStub
from penstock.model.v1.customers_pb2 import Customer

COMMITS, RATE = 2000, 200
#: Changes that one subscriber catches up with; many subscribers catch up with fewer.
LOG, SHARED = 200_000, 60_000
SUBSCRIBERS, IDLE = 100, 1000
#: Changes in one message of a subscriber that catches up.
MESSAGE = 2000
#: Rows in one call of a writer at full speed, and for how many seconds it writes.
BATCH, SECONDS = 2000, 8.0


def measure(hub: RunningHub, rows: int, rounds: int) -> list[Row]:
    """All figures of feeds; rates are medians of ``rounds``."""
    latency = _latency(hub)
    sustained, written = _sustained(hub)
    start = _fill(hub)
    single = _caught_up(hub, start, 1, LOG, rounds)
    shared = _caught_up(hub, start, SUBSCRIBERS, SHARED, rounds)
    return [*latency, *_idle(hub), sustained, written, *single, *shared]


# --- commit to client ----------------------------------------------------------------------


def _latency(hub: RunningHub, name: str = "commit to client at 200 commits/s") -> list[Row]:
    p50, p99 = _latencies(hub)
    return [
        Row(f"feed: {name}, p50", p50, "ms", 8, at_most=True),
        Row(f"feed: {name}, p99", p99, "ms", 30, at_most=True),
    ]


def _latencies(hub: RunningHub, commits: int = COMMITS) -> tuple[float, float]:
    """p50 and p99 in milliseconds from the answer to a write to the arrival of its change."""
    prefix = f"b-{uuid.uuid4().hex[:8]}"
    with _client(hub, "stamps", prefix=prefix, count=commits) as client:
        assert client.readline() == "ready\n"
        sent = _write_steadily(hub, prefix, commits)
        arrived = json.loads(client.readline())
    found = sorted((arrived[key] - moment) / 1e6 for key, moment in sent.items())
    # Negative ones arrived before the writer had its answer: the change was there at once.
    return statistics.median(found), found[int(len(found) * 0.99)]


def _write_steadily(hub: RunningHub, prefix: str, commits: int) -> dict[str, int]:
    """Write at a steady pace, over several connections; key -> when the write was answered."""
    sent: dict[str, int] = {}
    threads, each = 4, commits // 4
    began = time.monotonic() + 0.1

    def write(name: int) -> None:
        metadata = hub.metadata("admin")
        with grpc.insecure_channel(
            f"127.0.0.1:{hub.port}", options=(("grpc.use_local_subchannel_pool", 1),)
        ) as channel:
            stub = CustomersStub(channel)
            for turn in range(each):
                due = began + (turn * threads + name) / RATE
                time.sleep(max(0.0, due - time.monotonic()))
                record = Customer(customer_id=f"{prefix}-{name}-{turn}", name="Latency")
                stub.CreateCustomer(api.CreateCustomerRequest(customer=record), metadata=metadata)
                sent[record.customer_id] = time.monotonic_ns()

    hub.token("admin")
    writers = [threading.Thread(target=write, args=(i,)) for i in range(threads)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    return sent


# --- rates ---------------------------------------------------------------------------------


def _sustained(hub: RunningHub) -> tuple[Row, Row]:
    """New changes to one subscriber while writers write as fast as they can."""
    wait_until_quiet(hub)
    start = _now(hub)
    with _client(hub, "count", cursor=start, until=2**62, seconds=SECONDS) as client:
        assert client.readline() == "ready\n"
        began, count = time.monotonic(), 0
        while time.monotonic() - began < SECONDS:
            _upsert(hub, [f"s-{uuid.uuid4().hex[:12]}" for _ in range(BATCH)])
            count += BATCH
        seconds = time.monotonic() - began
        result = json.loads(client.readline())
    return (
        Row(
            "feed: new changes to one subscriber", result["count"] / result["seconds"], "/s", 15_000
        ),
        Row("feed: … while so many were written", count / seconds, "/s"),
    )


def _fill(hub: RunningHub) -> str:
    """Make sure that the log has LOG changes after the returned cursor."""
    wait_until_quiet(hub)
    start = _now(hub)
    wanted = hub.head() + LOG
    while hub.head() < wanted:
        _upsert(hub, [f"f-{uuid.uuid4().hex[:12]}" for _ in range(BATCH)])
    return start


def _caught_up(
    hub: RunningHub, start: str, subscribers: int, changes: int, rounds: int
) -> list[Row]:
    """Deliveries a second to so many subscribers that read the log from the same place."""
    wait_until_quiet(hub)
    rates, cpu = [], ""
    for turn in range(rounds):
        # Each round uses another message size, so that the hub has nothing cached.
        options = {"changes": changes, "subscribers": subscribers, "batch_size": MESSAGE - turn}
        with usage(hub) as used, _client(hub, "catch", cursor=start, **options) as client:
            assert client.readline() == "ready\n"
            result = json.loads(client.readline())
        rates.append(result["count"] / result["seconds"])
        cpu = f"{result['bytes'] / result['seconds'] / 1e6:,.0f} MB/s; {used.text()}"
    name = "one subscriber" if subscribers == 1 else f"{subscribers} subscribers"
    demand = 150_000 if subscribers == 1 else 1_500_000
    return [Row(f"feed: catch-up, {name}", statistics.median(rates), "/s", demand, note=cpu)]


# --- idle streams --------------------------------------------------------------------------


def _idle(hub: RunningHub) -> list[Row]:
    """What a thousand idle streams cost: memory for each, and latency for others."""
    wait_until_quiet(hub)
    alone = _latencies(hub, COMMITS // 2)[1]
    before = _memory(hub)
    with _client(hub, "idle", dataset="products", streams=IDLE) as client:
        assert client.readline() == "ready\n"
        each = (_memory(hub) - before) / IDLE / 1024
        beside = _latencies(hub, COMMITS // 2)[1]
    return [
        Row(f"feed: memory of each of {IDLE:,} idle streams", each, "KiB", 150, at_most=True),
        Row(
            "feed: others' p99 beside them, to alone",
            beside / max(alone, 1e-9),
            "",
            2,
            at_most=True,
            note=f"{alone:.1f} ms alone, {beside:.1f} ms beside",
        ),
    ]


def _memory(hub: RunningHub) -> int:
    found = [*hub.processes("worker"), *hub.processes("envoy"), *hub.processes("postgres")]
    return sum(p.memory_full_info().uss for p in found)


# --- parts ---------------------------------------------------------------------------------


def _now(hub: RunningHub) -> str:
    hub.head()
    return str(hub.get("/v1/changes:log").json()["newestCursor"])


def _upsert(hub: RunningHub, keys: Sequence[str]) -> None:
    body = "\n".join(["customer_id,name,source_id", *[f"{k},Feeds,{k[2:8]}" for k in keys]])
    reply = hub.request(
        "POST",
        "/v1/customers:import",
        consumer="admin",
        body=body.encode(),
        headers={"content-type": "text/csv"},
    )
    assert reply.status == 200, reply.text


class _Client:
    """A client's process and its output."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def readline(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def _client(hub: RunningHub, kind: str, **options: Any) -> Iterator[_Client]:
    """A process of ``feed_client``, ended at the end of the block."""
    document = {"kind": kind, "port": hub.port, "token": hub.token("admin"), **options}
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("feed_client.py")), json.dumps(document)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield _Client(process)
    finally:
        process.kill()
        process.communicate()
        eventually(lambda: process.poll() is not None)
