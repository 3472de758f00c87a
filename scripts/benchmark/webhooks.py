"""Webhooks: signed deliveries, from a commit to its receipt, and a backlog with dead endpoints."""

from __future__ import annotations

import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil

from benchmark.table import Row
from harness import RunningHub, eventually
from penstock.client import Client

_RECEIVER = Path(__file__).parent / "reference" / "receiver.py"
#: Deliveries of one endpoint, changes a second and how many of them, and the backlog.
_STEADY = 20_000
_RATE, _PACED = 50, 500
_ENDPOINTS, _EVENTS = 40, 2_500
#: Drains that are compared: how many pairs, and the events of each endpoint.
_PAIRS, _FEW = 4, 250
#: One of these answers 500, the other never answers: 5 % of the endpoints.
_FAILING = ("/fail", "/hang")


@dataclass
class Receiver:
    """A process that receives deliveries."""

    process: subprocess.Popen[str]
    url: str

    def taken(self) -> tuple[int, dict[str, float]]:
        """How many it took in all, and the time of each by key since the last call."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        count, times = json.loads(self.process.stdout.readline())
        return count, times

    def wait(self, count: int, watched: psutil.Process) -> tuple[float, float]:
        """Seconds until it has taken so many, and the peak MiB of a process meanwhile."""
        start, most = time.perf_counter(), 0.0

        def done() -> bool:
            nonlocal most
            most = max(most, watched.memory_full_info().uss / 2**20)
            return self.taken()[0] >= count

        eventually(done, 600)
        return time.perf_counter() - start, most


@contextlib.contextmanager
def _receiver() -> Iterator[Receiver]:
    with subprocess.Popen(
        [sys.executable, str(_RECEIVER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield Receiver(process, f"http://127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.kill()


def measure(hub: RunningHub, rows: int, rounds: int) -> list[Row]:
    """Sizes are those of the demands, whatever ``rows`` and ``rounds`` are."""
    with Client(hub.url, api_key=hub.api_key) as client:
        return [*_steady(hub, client), *_paced(hub, client), *_backlog(hub, client)]


def _steady(hub: RunningHub, client: Client) -> list[Row]:
    """One endpoint, all of its deliveries waiting."""
    with _receiver() as receiver, _endpoints(hub, [receiver.url], prefix="steady") as names:
        _call(hub, names[0], ":pause")
        _write(client, "steady", _STEADY)
        _queued(hub, names, _STEADY)
        keeper = psutil.Process(hub.processes("keeper")[0].pid)
        before = keeper.cpu_times()
        _call(hub, names[0], ":resume")
        seconds, _ = receiver.wait(_STEADY, keeper)
        after = keeper.cpu_times()
    used = after.user + after.system - before.user - before.system
    note = f"keeper {used / _STEADY * 1e6:.0f} µs of CPU each"
    return [Row("signed deliveries, keep-alive", _STEADY / seconds, "a second", 1_500, note=note)]


def _paced(hub: RunningHub, client: Client) -> list[Row]:
    """Single writes at a steady rate; measures from sending each write to its receipt."""
    customers = client.dataset("customers")
    kind: Any = customers.record_class
    sent: dict[str, float] = {}
    with _receiver() as receiver, _endpoints(hub, [receiver.url], prefix="paced"):
        start = time.perf_counter()
        for i in range(_PACED):
            time.sleep(max(0.0, start + i / _RATE - time.perf_counter()))
            key = f"paced-{i:06d}"
            sent[key] = time.time()
            customers.create(kind(customer_id=key, name=key))
        receiver_times: dict[str, float] = {}
        eventually(
            lambda: receiver_times.update(receiver.taken()[1]) or len(receiver_times) >= _PACED
        )
    delays = sorted((receiver_times[key] - moment) * 1000 for key, moment in sent.items())
    note = "the call of the write included"
    return [
        Row("commit to receipt, 50 a second, p50", _part(delays, 50), "ms", 30, True, note),
        Row("commit to receipt, 50 a second, p99", _part(delays, 99), "ms", 150, True, note),
    ]


def _backlog(hub: RunningHub, client: Client) -> list[Row]:
    """A backlog that failing endpoints share, and their effect on the others.

    "One dead endpoint never slows another" is a demand on the deliveries to the healthy endpoints:
    it counts the time from when they are due, which is when the endpoints are resumed, until they
    are taken. With a backlog that is mostly time in the queue, where a dead neighbour would be
    felt; the time of an attempt alone shows how busy this machine is. The comparison is with the
    same endpoints without the failing ones, not with healthy ones in their place: the work that a
    dead endpoint does not take must not make up for the work that it makes. Both are drained in
    turn, in alternating order, so that other load on the machine affects both.
    """
    whole = _drain(hub, client, "backlog", _FAILING, _EVENTS)
    pairs: list[tuple[_Drain, _Drain]] = []
    for n in range(_PAIRS):
        sides = [_drain(hub, client, f"pair-{n}{bool(ill)}", ill, _FEW) for ill in _turn(n)]
        pairs.append((sides[0], sides[1]) if n % 2 == 0 else (sides[1], sides[0]))
    ratios = [ill.p99 / well.p99 for well, ill in pairs]
    note = (
        f"{min(ratios):.2f} to {max(ratios):.2f} in {_PAIRS} pairs; without them "
        f"{statistics.median(well.p99 for well, _ in pairs):,.0f} ms"
    )
    gained = max(d.gained for d in (whole, *itertools.chain.from_iterable(pairs)))
    total = _ENDPOINTS * _EVENTS
    healthy = _ENDPOINTS - len(_FAILING)
    return [
        Row(
            f"backlog of {total:,}, 5 % failing", healthy * _EVENTS / whole.seconds, "a second",
            note="of the healthy endpoints",
        ),
        Row("memory gained by the keeper meanwhile", gained, "MiB", 64, True),
        Row("p99 from due to taken, healthy endpoints, to that without failing ones",
            statistics.median(ratios), "times", 1.2, True, note),
    ]  # fmt: skip


def _turn(n: int) -> Iterable[tuple[str, ...]]:
    """Drain without and with failing endpoints; every other pair begins with the latter."""
    sides: list[tuple[str, ...]] = [(), _FAILING]
    return sides if n % 2 == 0 else reversed(sides)


@dataclass(frozen=True, slots=True)
class _Drain:
    """The healthy endpoints' seconds until they have all, their p99 from due to taken in ms, and
    the MiB that the keeper gained meanwhile.
    """

    seconds: float
    p99: float
    gained: float


def _drain(
    hub: RunningHub, client: Client, prefix: str, failing: tuple[str, ...], events: int
) -> _Drain:
    """Have the same healthy endpoints, and failing ones beside them, deliver a backlog."""
    healthy = _ENDPOINTS - len(_FAILING)
    with _receiver() as receiver:
        urls = [receiver.url + path for path in (*failing, *map("/{}".format, range(healthy)))]
        with _endpoints(hub, urls, prefix=prefix) as names:
            for name in names:
                _call(hub, name, ":pause")
            _write(client, prefix, events)
            _queued(hub, names, events * len(names))
            keeper = psutil.Process(hub.processes("keeper")[0].pid)
            before = keeper.memory_full_info().uss / 2**20
            due = time.time()
            for name in names:
                _call(hub, name, ":resume")
            seconds, most = receiver.wait(healthy * events, keeper)
            p99 = _p99(hub, names[len(failing) :], healthy * events, due)
    return _Drain(seconds, p99, most - before)


def _p99(hub: RunningHub, names: list[str], count: int, due: float) -> float:
    """Milliseconds from ``due`` until 99 of 100 of so many deliveries were taken."""
    sql = (
        "SELECT count(*), percentile_disc(0.99) WITHIN GROUP"
        " (ORDER BY (extract(epoch FROM start_time) - $2) * 1000 + latency_ms)"
        " FROM hub.webhook_attempt WHERE delivered AND webhook_id = ANY ($1)"
    )
    found: list[tuple[Any, ...]] = []

    def settled() -> bool:
        found[:] = hub.sql(sql, names, Decimal(due))
        return bool(found[0][0] == count)

    eventually(settled)
    return float(found[0][1])


@contextlib.contextmanager
def _endpoints(hub: RunningHub, urls: list[str], *, prefix: str) -> Iterator[list[str]]:
    names = []
    selection = {"dataset": "customers", "filter": f'customer_id = "{prefix}-*"'}
    for url in urls:
        document = {"url": url, "selections": [selection], "options": {"concurrency": 32}}
        reply = hub.request("POST", "/v1/webhooks", consumer="admin", json_body=document)
        assert reply.status == 200, reply.text
        names.append(reply.json()["webhook"]["webhookId"])
    try:
        yield names
    finally:
        for name in names:
            hub.request("DELETE", f"/v1/webhooks/{name}", consumer="admin")


def _call(hub: RunningHub, name: str, what: str) -> None:
    reply = hub.request("POST", f"/v1/webhooks/{name}{what}", consumer="admin", json_body={})
    assert reply.status == 200, reply.text


def _write(client: Client, prefix: str, count: int) -> None:
    customers = client.dataset("customers")
    kind: Any = customers.record_class
    for start in range(0, count, 1000):
        keys = [f"{prefix}-{i:06d}" for i in range(start, min(start + 1000, count))]
        customers.batch_upsert(
            [kind(customer_id=k, name=f"Customer {k}", email=f"{k}@example.com") for k in keys]
        )


def _queued(hub: RunningHub, names: list[str], count: int) -> None:
    sql = "SELECT count(*) FROM hub.webhook_delivery WHERE webhook_id = ANY ($1)"
    eventually(lambda: hub.sql(sql, names) == [(count,)], 300)


def _part(sorted_values: list[float], percent: int) -> float:
    return sorted_values[min(len(sorted_values) - 1, len(sorted_values) * percent // 100)]
