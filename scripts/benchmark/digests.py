"""The digest of all customers, and a repair that finds ten that differ, through Envoy."""

from __future__ import annotations

import random
import statistics
import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any

from benchmark.database import load_customers, wait_until_quiet
from benchmark.processes import usage
from benchmark.table import Row
from harness import RunningHub
from penstock.client import Client
from penstock.client.dataset import DatasetClient
from penstock.client.digest import Repaired

#: How many records differ from the hub's when a repair begins.
DIFFERING = 10


class Copy:
    """Keys and digests of a copy; records what a repair would write."""

    def __init__(self, records: list[tuple[str, bytes]]) -> None:
        self.records = records
        self._keys = [key for key, _ in records]
        self.told: list[str] = []

    def digests(self, start: str, end: str) -> Iterable[tuple[str, bytes]]:
        at = bisect_left(self._keys, start)
        last = bisect_left(self._keys, end) if end else len(self._keys)
        return (self.records[i] for i in range(at, last))

    def apply(self, upserts: Sequence[Any], deletes: Sequence[str]) -> None:
        self.told += [r.customer_id for r in upserts] + list(deletes)


def measure(hub: RunningHub, rows: int, rounds: int) -> list[Row]:
    """Measure as the admin, who sees everything."""
    load_customers(hub, rows)
    wait_until_quiet(hub)
    with Client(hub.url, api_key=hub.api_key) as client:
        customers = client.dataset("customers")
        whole, note, count = _digest(hub, rounds)
        seconds, sizes, repaired = _repair(customers, rounds)
    export = len(hub.get("/v1/customers:export", format="NDJSON").body)
    title = f"repair that finds {DIFFERING} rows in {count:,}"
    return [
        Row(f"digest of {count:,} rows", whole, "s", 5, at_most=True, note=note),
        Row(title, seconds, "s", 10, at_most=True, note=f"{repaired.calls} calls"),
        Row(
            "bytes of that repair, of those of a full export",
            100 * sizes / export,
            "%",
            1,
            at_most=True,
            note=f"{sizes:,} bytes",
        ),
    ]


def _digest(hub: RunningHub, rounds: int) -> tuple[float, str, int]:
    """The seconds, their cost to the hub, and the rows."""
    seconds = []
    for _ in range(rounds):
        with usage(hub) as used:
            start = time.perf_counter()
            reply = hub.get("/v1/customers:digest")
            seconds.append(time.perf_counter() - start)
        assert reply.status == 200 and "nextKey" not in reply.json(), reply.text[:500]
    return statistics.median(seconds), used.text(), int(reply.json()["rowCount"])


def _repair(customers: DatasetClient, rounds: int) -> tuple[float, int, Repaired]:
    """Seconds, and bytes on the wire without headers."""
    seconds = []
    records = _records(customers)
    for _ in range(rounds):
        copy, wrong = _damaged(records)
        start = time.perf_counter()
        repaired = customers.digests.repair(copy)
        seconds.append(time.perf_counter() - start)
        assert sorted(copy.told) == wrong, (copy.told, wrong)
    return statistics.median(seconds), repaired.byte_count, repaired


def _records(customers: DatasetClient) -> list[tuple[str, bytes]]:
    """Keys and digests of all records, as the hub reports them."""
    found: list[tuple[str, bytes]] = []
    start = state = ""
    while True:
        reply = customers.digests.read(keys=True, start_key=start, state=state)
        for part in reply.ranges:
            found += [(r.key, bytes.fromhex(r.sha256)) for r in part.records]
        start, state = reply.next_key, reply.state
        if not start:
            return found


def _damaged(right: list[tuple[str, bytes]]) -> tuple[Copy, list[str]]:
    """A copy that lacks some records, has others wrong, and holds some that exist nowhere else."""
    records = dict(right)
    keys = random.Random(7).sample(list(records), DIFFERING - 2)
    for i, key in enumerate(keys):
        if i % 2:
            records[key] = bytes(32)
        else:
            del records[key]
    extra = [f"{keys[0]}-extra", "~"]
    records |= {key: bytes(32) for key in extra}
    return Copy(sorted(records.items())), sorted([*keys, *extra])
