"""A1 and R1 beside a neighbour that sends poisoned requests, while a worker is killed.

One consumer sends U+0000 in every text of every method, keys of 3,000 bytes, giant bodies, uploads
that break off and harmful files. The other makes normal calls: each gets the right answer and
leaves exactly one audit entry with the right number and names of records. Each of its acknowledged
writes is stored once and is in the feed once, and nothing else is. ``PENSTOCK_NEIGHBOUR_CALLS``
sets the size.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import itertools
import json
import os
import random
import socket
import threading
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import pytest

from chance import SEED
from faults.state import table_of
from faults.streams import Consumer, Judge
from faults.test_acked_writes import complete, kill
from faults.traffic import Traffic
from faults.validator import FeedValidator, State
from feeds import at
from harness import PATIENCE, Reply, RunningHub, eventually
from penstockd.audit.keys import find_key, page_keys
from penstockd.catalog import Catalog
from security.calls import every_route, placed
from security.test_hostile_texts import Door

pytestmark = pytest.mark.lane("faults/own_hub")

#: The normal calls before a worker is killed, while it is replaced, and after.
CALLS = int(os.environ.get("PENSTOCK_NEIGHBOUR_CALLS", "80"))
#: The rows that are written meanwhile, each time.
WRITES = 100
#: Requests with U+0000 that are sent in a row.
IN_A_ROW = 20


class Hostile:
    """Sends one poisoned request after the other, as the administrator, until told to stop."""

    def __init__(self, hub: RunningHub) -> None:
        self._hub = hub
        self.prefix = f"hostile-{uuid.uuid4().hex[:8]}"
        self.outcomes: dict[str, Counter[str]] = defaultdict(Counter)
        self.done = threading.Event()
        self._kinds: list[Callable[[], Iterable[str]]] = [
            self.nul_over_grpc,
            self.nul_over_rest,
            self.long_keys,
            self.giant_bodies,
            self.cut_uploads,
            self.hostile_files,
        ]
        self._texts = itertools.cycle(
            [(route, request) for route in every_route() for _, request in placed(route, "a\0b")]
        )

    def run(self) -> None:
        """Send each kind in turn, and ignore the answers."""
        self._hub.token("admin")
        with grpc.insecure_channel(f"127.0.0.1:{self._hub.port}") as channel:
            self._door = Door(self._hub, channel)
            for kind in itertools.cycle(self._kinds):
                if self.done.is_set():
                    return
                with contextlib.suppress(OSError, http.client.HTTPException):
                    self.outcomes[kind.__name__].update(kind())

    def has_tried_all(self) -> bool:
        """Whether each kind has been sent twice."""
        return all(sum(self.outcomes[k.__name__].values()) > 1 for k in self._kinds)

    def nul_over_grpc(self) -> Iterable[str]:
        for route, request in itertools.islice(self._texts, IN_A_ROW):
            refused = self._door.refusal(route, request)
            yield refused.code.name if refused is not None else "OK"

    def nul_over_rest(self) -> Iterable[str]:
        yield self._send("GET", "/v1/customers/a%00b")
        yield self._send("GET", "/v1/customers?filter=name%3D%22a%00b%22")
        record = {"customerId": f"{self.prefix}-a\0b", "name": "x"}
        yield self._send("POST", "/v1/customers", json.dumps(record).encode())
        batch = {"customers": [{**record, "customerId": self.prefix, "tags": ["\0"]}]}
        yield self._send("POST", "/v1/customers:batchUpsert", json.dumps(batch).encode())

    def long_keys(self) -> Iterable[str]:
        key = f"{self.prefix}-{'k' * 3000}"
        yield self._send("GET", f"/v1/customers/{key}")
        yield self._send("DELETE", f"/v1/customers/{key}")
        record = {"customerId": key, "name": "x"}
        yield self._send("POST", "/v1/customers", json.dumps(record).encode())

    def giant_bodies(self) -> Iterable[str]:
        record = {"customerId": f"{self.prefix}-g", "name": "x", "notes": "n" * 6_000_000}
        yield self._send("POST", "/v1/customers", json.dumps(record).encode())
        yield self._send("PATCH", "/v1/customers/c00000001", b'{"name":"x",' + b"\n" * 300_000)
        yield self._send("POST", "/v1/customers", b"[" * 200_000)

    def cut_uploads(self) -> Iterable[str]:
        rows = b"".join(
            b'{"customerId":"%s-cut-%d","name":"x"}\n' % (self.prefix.encode(), i)
            for i in range(50)
        )
        with socket.create_connection(("127.0.0.1", self._hub.port), timeout=PATIENCE) as sent:
            sent.sendall(
                b"POST /v1/customers:import?format=NDJSON HTTP/1.1\r\nhost: hub\r\n"
                b"x-api-key: %s\r\ncontent-length: %d\r\n\r\n"
                % (self._hub.api_key.encode(), 2 * len(rows))
            )
            sent.sendall(rows)
        yield "CUT"

    def hostile_files(self) -> Iterable[str]:
        row = json.dumps({"customerId": f"{self.prefix}-f", "name": "x"}).encode() + b"\n"
        equal = gzip.compress(row * 10_000)
        headers = {"content-encoding": "gzip"}
        path = "/v1/customers:import?format="
        yield self._send("POST", f"{path}NDJSON&partial=true", equal, **headers)
        yield self._send("POST", f"{path}NDJSON", gzip.compress(bytes(50_000_000)), **headers)
        yield self._send("POST", f"{path}NDJSON", b'{"name":"\\u0000"}\n' * 200)
        yield self._send("POST", f"{path}JSON", b"[" * 100_000)
        yield self._send("POST", f"{path}XML", _LAUGHS)
        yield self._send("POST", f"{path}PARQUET", b"PAR1" + bytes(1000) + b"PAR1")

    def _send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> str:
        sent = {"content-type": "application/json", **headers}
        reply = self._hub.request(method, path, consumer="admin", body=body, headers=sent)
        return str(reply.status)


_LAUGHS = (
    b'<!DOCTYPE x [<!ENTITY a "ha">'
    + b"".join(b'<!ENTITY %c "&%c;&%c;&%c;&%c;">' % (c + 1, c, c, c, c) for c in range(97, 115))
    + b"]><customers><customer><name>&s;</name></customer></customers>"
)


@dataclass(frozen=True)
class Known:
    """What the caller knows of an answered call. ``sure``: no worker died meanwhile."""

    method: str
    keys: frozenset[str]
    sure: bool

    @property
    def told(self) -> frozenset[str]:
        """The records that its entry names; for a batch the change log names them, by revision."""
        return frozenset() if self.method == "batch" else self.keys


class Honest:
    """Makes calls of all kinds about records of its own, and judges each answer."""

    def __init__(self, hub: RunningHub, seed: int) -> None:
        self._hub, self._chance = hub, random.Random(seed)
        self.prefix = f"honest-{uuid.uuid4().hex[:8]}"
        self.known: dict[str, Known] = {}
        self.unanswered = 0
        self.stormy = threading.Event()
        self._mine = [f"{self.prefix}-{i}" for i in range(7)]
        self._numbers = itertools.count()
        self._kinds = (self.get, self.list, self.export, self.create, self.batch, self.update)
        assert self._write_own().status == 200

    def _write_own(self) -> Reply:
        records = [{"customerId": k, "name": "x", "sourceId": self.prefix} for k in self._mine]
        return self._send("POST", ":batchUpsert", {"customers": records})

    def call(self) -> None:
        """One call; its answer is right, or missing because its worker has died."""
        calm = not self.stormy.is_set()
        kind = self._chance.choice(self._kinds)
        try:
            reply, keys = kind()
        except (OSError, http.client.HTTPException):
            assert self.stormy.is_set(), f"{kind.__name__} has no answer"
            self.unanswered += 1
            return
        if reply.status in (502, 503, 504) and self.stormy.is_set():
            self.unanswered += 1
            return
        assert reply.status == 200, (kind.__name__, reply.text)
        sure = calm and not self.stormy.is_set()
        self.known[reply.request_id] = Known(kind.__name__, frozenset(keys), sure)

    def get(self) -> tuple[Reply, Iterable[str]]:
        key = self._chance.choice(self._mine)
        reply = self._send("GET", f"/{key}")
        assert reply.status != 200 or reply.json()["customerId"] == key
        return reply, [key]

    def list(self) -> tuple[Reply, Iterable[str]]:
        reply = self._send("GET", f"?filter=source_id%3D%22{self.prefix}%22")
        if reply.status == 200:
            assert [r["customerId"] for r in reply.json()["customers"]] == self._mine
        return reply, self._mine

    def export(self) -> tuple[Reply, Iterable[str]]:
        query = f"?format=NDJSON&filter=source_id%3D%22{self.prefix}%22"
        reply = self._send("GET", f":export{query}")
        if reply.status == 200:
            rows = [json.loads(line) for line in reply.body.splitlines()]
            assert [r["customerId"] for r in rows if "customerId" in r] == self._mine
        return reply, self._mine

    def create(self) -> tuple[Reply, Iterable[str]]:
        key = f"{self.prefix}-new-{next(self._numbers)}"
        reply = self._send("POST", "", {"customerId": key, "name": "x"})
        assert reply.status != 200 or reply.json()["customerId"] == key
        return reply, [key]

    def batch(self) -> tuple[Reply, Iterable[str]]:
        keys = [f"{self.prefix}-new-{next(self._numbers)}" for _ in range(3)]
        records = [{"customerId": key, "name": "x"} for key in keys]
        return self._send("POST", ":batchUpsert", {"customers": records}), keys

    def update(self) -> tuple[Reply, Iterable[str]]:
        key = self._chance.choice(self._mine)
        reply = self._send("PATCH", f"/{key}", {"name": f"x{next(self._numbers)}"})
        assert reply.status != 200 or reply.json()["customerId"] == key
        return reply, [key]

    def _send(self, method: str, path: str, body: Any = None) -> Reply:
        return self._hub.request(method, f"/v1/customers{path}", consumer="crm", json_body=body)

    def check(self) -> None:
        """Compare what it knows with the audit and the table. Raises AssertionError."""
        entries = defaultdict(list)
        for row in self._hub.sql(_ENTRIES, list(self.known)):
            entries[row[0]].append(row[1:])
        for request_id, known in self.known.items():
            problem = entry_problem(known, entries[request_id])
            assert problem is None, (known, problem, entries[request_id])
        rows = self._hub.sql(
            "SELECT customer_id FROM data.customers WHERE customer_id LIKE $1",
            f"{self.prefix}-new-%",
        )
        stored = {row[0] for row in rows}
        created = [k for k in self.known.values() if k.method in ("create", "batch")]
        acked = {key for known in created for key in known.keys}
        assert acked <= stored
        assert len(stored - acked) <= 3 * self.unanswered, stored - acked


_ENTRIES = """
SELECT request_id, phase, outcome, consumer_id, row_count, record_key, keys
FROM hub.audit_entry WHERE request_id = ANY ($1)
"""


def entry_problem(known: Known, entries: list[tuple[Any, ...]]) -> str | None:
    """The fault in a call's entries."""
    calls = [e for e in entries if e[0] == "CALL" and e[1] == "OK" and e[2] == "crm"]
    others = [e for e in entries if e[0] == "CALL" and e not in calls]
    if not calls or (known.sure and (len(calls) > 1 or others)):
        return "it has not exactly one entry"
    if not any(count == len(known.keys) for _, _, _, count, _, _ in entries):
        return "the count is missing"
    told = {key for *_, key, _ in entries if key is not None}
    sets = [data for *_, data in entries if data is not None]
    if not all(key in told or any(find_key(data, key) for data in sets) for key in known.told):
        return "a key is missing"
    if told - known.keys or any(find_key(data, "never-there") for data in sets):
        return "a key is made up"
    return None


async def test_poison_hurts_who_sends_it_alone(own_hub: RunningHub, catalog: Catalog) -> None:
    print(f"PENSTOCK_FUZZ_SEED={SEED}")
    place = await asyncio.to_thread(own_hub.head)
    state = await table_of(own_hub, catalog)
    start = await asyncio.to_thread(at, own_hub, place)
    judge = Judge(FeedValidator(catalog, place, state), start)
    hostile = Hostile(own_hub)
    honest = await asyncio.to_thread(Honest, own_hub, SEED)
    going, reading = asyncio.Event(), asyncio.Event()
    going.set()
    reading.set()
    key = own_hub.consumers["crm"]["api_key"]
    async with Traffic(own_hub.url, key, SEED) as traffic, asyncio.TaskGroup() as group:

        async def work() -> None:
            """Make that many calls, and as many writes beside them."""
            enough = len(traffic.acked) + WRITES
            for _ in range(CALLS):
                await asyncio.to_thread(honest.call)
            await asyncio.to_thread(eventually, lambda: len(traffic.acked) >= enough)

        striking = group.create_task(asyncio.to_thread(hostile.run))
        try:
            consumer = Consumer(own_hub.port, own_hub.api_key, judge)
            following = group.create_task(consumer.follow(reading))
            writing = [group.create_task(traffic.client(i, going)) for i in range(2)]
            await asyncio.to_thread(eventually, hostile.has_tried_all)
            await work()
            assert set(traffic.outcomes) == {"200"} and not traffic.unknown, traffic.outcomes
            honest.stormy.set()
            await asyncio.to_thread(kill, own_hub, "worker", random.Random(SEED))
            await work()
            await asyncio.to_thread(eventually, lambda: complete(own_hub))
            honest.stormy.clear()
            await work()
        finally:
            hostile.done.set()
            going.clear()
        await asyncio.gather(striking, *writing)
        head = await asyncio.to_thread(own_hub.head)
        await asyncio.to_thread(eventually, partial(judge.arrived, head))
        reading.clear()
        await following
    print({kind: dict(outcomes) for kind, outcomes in hostile.outcomes.items()})
    print(f"{len(honest.known)} answered, {honest.unanswered} not; {dict(traffic.outcomes)}")
    await asyncio.to_thread(honest.check)
    nothing_hostile_stands(await table_of(own_hub, catalog), hostile, judge, traffic)


def nothing_hostile_stands(table: State, hostile: Hostile, judge: Judge, traffic: Traffic) -> None:
    """The followed changes lead to the table, which has no cut-off or poisoned record."""
    judge.validator.finish(table, traffic.acked, [*traffic.acked, *traffic.unknown])
    judge.validator.check()
    stands = {k for d, k in table if d == "customers" and k.startswith(hostile.prefix)}
    assert stands <= {f"{hostile.prefix}-f"}, stands


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([("CALL", "OK", "crm", 2, None, b"")], None),
        ([], "it has not exactly one entry"),
        ([("CALL", "OK", "crm", 2, None, b"")] * 2, "it has not exactly one entry"),
        ([("CALL", "INTERNAL", "crm", 2, None, b"")], "it has not exactly one entry"),
        ([("CALL", "OK", "crm", None, None, b"")], "the count is missing"),
        ([("CALL", "OK", "crm", 2, "a", None)], "a key is missing"),
        ([("CALL", "OK", "crm", 2, "c", b"")], "a key is made up"),
    ],
)
def test_the_comparison_finds_what_is_wrong(
    entries: list[tuple[Any, ...]], problem: str | None
) -> None:
    """The control."""
    given = [(*e[:5], page_keys(["a", "b"]) if e[5] == b"" else e[5]) for e in entries]
    assert entry_problem(Known("list", frozenset("ab"), sure=True), given) == problem
