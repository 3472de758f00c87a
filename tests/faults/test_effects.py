"""A1: whatever is cancelled or killed, the effects and the audit entries match exactly.

Calls of every kind go straight to a worker and are cancelled at random moments; at the end a worker
is killed. Everything that a client received and that the database stores must have an entry with
outcome OK; every write that an entry names must be stored.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import statistics
import time
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import grpc
import grpc.aio
import psutil
import pytest
from google.api.httpbody_pb2 import HttpBody

from chance import SEED
from harness import PATIENCE, RunningHub, eventually
from penstock.api.v1 import customers_service_pb2 as api
from penstock.api.v1.customers_service_pb2_grpc import CustomersStub
from penstock.hub.v1.auth_pb2_grpc import AuthStub
from penstock.model.v1.customers_pb2 import Customer
from penstockd.node.sockets import sockets_folder

pytestmark = pytest.mark.lane("faults/own_hub")

CALLS = int(os.environ.get("PENSTOCK_A1_CALLS", "1000"))
#: The number of calls at one time.
CLIENTS = 16
#: The share of calls that are cancelled, at some time before they would usually have ended.
CANCELLED = 0.6


@dataclass
class Account:
    """What clients know: by request id, the method, and what each call wrote or received."""

    method: dict[str, str] = field(default_factory=dict)
    received: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    wrote: dict[str, dict[str, str]] = field(default_factory=dict)
    deleted: dict[str, str] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Entry:
    """The audit's record of a call."""

    request_id: str
    outcome: str
    phase: str


def differences(
    account: Account, entries: list[Entry], records: dict[str, str], known: set[str]
) -> list[str]:
    """The differences between effects and entries. ``records``: key -> mark; ``known``: all keys
    ever seen."""
    found: list[str] = []
    calls: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        if entry.phase == "CALL":
            calls[entry.request_id].append(entry.outcome)
    for request_id in account.received:
        if calls[request_id].count("OK") != 1:
            found.append(
                f"{account.method[request_id]} {request_id} was answered: {calls[request_id]}"
            )
    for request_id in account.refused:
        if not any(o not in ("OK", "CANCELLED") for o in calls[request_id]):
            found.append(f"{account.method[request_id]} {request_id} was refused and has no entry")
    for request_id, outcomes in calls.items():
        if outcomes.count("OK") > 1:
            found.append(f"{request_id} has {len(outcomes)} entries")
    written = {
        (key, mark): request_id
        for request_id, marks in account.wrote.items()
        for key, mark in marks.items()
    }
    for key, mark in records.items():
        cause = written.get((key, mark))
        if cause is None or calls[cause].count("OK") != 1:
            found.append(f"{key} holds {mark}, of which {cause} has {calls.get(cause or '')}")
    for request_id, marks in account.wrote.items():
        if "OK" in calls[request_id]:
            found += [f"{request_id} wrote {k}: it is not there" for k in marks if k not in known]
    for request_id, key in account.deleted.items():
        if ("OK" in calls[request_id]) is (key in records):
            there = "there" if key in records else "gone"
            found.append(f"{request_id} deletes {key}, which is {there}: {calls[request_id]}")
    return found


READS = ("get", "list", "page", "export")
KINDS = (*READS, "create", "create", "batch", "import", "delete", "token", "denied")


class Clients:
    """Calls of every kind against one worker; some are cancelled."""

    def __init__(self, hub: RunningHub, seed: int) -> None:
        self._hub, self._chance = hub, random.Random(seed)
        self.account = Account()
        self.prefix = uuid.uuid4().hex[:8]
        self._numbers = itertools.count()
        self._metadata = {c: hub.metadata(c) for c in ("crm", "bi")}
        secret = hub.consumers["crm"]["client_secret"]
        form = {"grant_type": "client_credentials", "client_id": "crm", "client_secret": secret}
        self._form = HttpBody(data=urlencode(form).encode())
        # The durations in seconds of the latest calls that were not cancelled.
        self._lengths: deque[float] = deque([0.03], maxlen=50)
        self._targets = self._make_targets()

    def _make_targets(self) -> list[str]:
        """Create records for the deletes; these creations are effects, too."""
        marks = {f"{self.prefix}-target-{i}": "target" for i in range(CALLS // 5)}
        body = {"customers": [{"customerId": k, "name": "x", "sourceId": m}
                              for k, m in marks.items()]}  # fmt: skip
        reply = self._hub.request(
            "POST", "/v1/customers:batchUpsert", consumer="crm", json_body=body
        )
        assert reply.status == 200, reply.text
        self.account.wrote[reply.request_id] = marks
        self.account.method[reply.request_id] = "batch"
        return list(marks)

    async def run(self, socket: Path, left: Iterator[object]) -> None:
        """Make a call for each item in ``left``, CLIENTS at a time."""
        async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            await asyncio.gather(*(self._client(channel, left) for _ in range(CLIENTS)))

    async def _client(self, channel: grpc.aio.Channel, left: Iterator[object]) -> None:
        account = self.account
        for _ in left:
            request_id = f"{self.prefix}-{next(self._numbers):06}"
            kind = self._chance.choice(KINDS)
            if kind == "delete" and not self._targets:
                kind = "create"
            account.method[request_id] = kind
            began = time.monotonic()
            call = self._call(channel, request_id, kind)
            task = asyncio.ensure_future(_answer(call, kind))
            cancelled = self._chance.random() < CANCELLED
            if cancelled:
                usual = statistics.median(self._lengths)
                await asyncio.wait({task}, timeout=self._chance.uniform(0, usual))
                call.cancel()
            try:
                await task
            except asyncio.CancelledError:
                account.outcomes["CANCELLED"] += 1
            except grpc.aio.AioRpcError as error:
                account.outcomes[error.code().name] += 1
                if error.code() not in _UNKNOWN:
                    account.refused.add(request_id)
            else:
                account.outcomes["OK"] += 1
                account.received.add(request_id)
                if not cancelled:
                    self._lengths.append(time.monotonic() - began)

    def _call(self, channel: Any, request_id: str, kind: str) -> Any:
        """Start a call."""
        if kind == "token":
            plain = (("x-request-id", request_id),)
            return AuthStub(channel).IssueToken(self._form, metadata=plain)
        reader = self._chance.choice(("crm", "bi"))
        consumer = reader if kind in READS else "bi" if kind == "denied" else "crm"
        metadata = (*self._metadata[consumer], ("x-request-id", request_id))
        stub = CustomersStub(channel)
        method, request = self._request(stub, request_id, kind)
        return method(request, metadata=metadata)

    def _request(self, stub: Any, request_id: str, kind: str) -> tuple[Any, Any]:
        """The method and the request of a call, whose effects are recorded."""
        match kind:
            case "get":
                return stub.GetCustomer, api.GetCustomerRequest(customer_id="c00000001")
            case "list":
                return stub.ListCustomers, api.ListCustomersRequest(page_size=5)
            case "page":
                return stub.ExportCustomers, api.ExportCustomersRequest(page_size=5, format="CSV")
            case "export":
                export = api.StreamExportCustomersRequest(format="NDJSON")
                return stub.StreamExportCustomers, export
            case "delete":
                target = self._targets.pop()
                self.account.deleted[request_id] = target
                return stub.DeleteCustomer, api.DeleteCustomerRequest(customer_id=target)
            case "denied":
                return stub.CreateCustomer, api.CreateCustomerRequest(customer=_record("x", "x"))
        mark = request_id.rpartition("-")[2]
        keys = [f"{request_id}-{i}" for i in range(1 if kind == "create" else 3)]
        self.account.wrote[request_id] = dict.fromkeys(keys, mark)
        if kind == "create":
            create = api.CreateCustomerRequest(customer=_record(keys[0], mark))
            return stub.CreateCustomer, create
        if kind == "batch":
            batch = api.BatchUpsertCustomersRequest(customers=[_record(k, mark) for k in keys])
            return stub.BatchUpsertCustomers, batch
        rows = [{"customerId": k, "name": "x", "sourceId": mark} for k in keys]
        piece = HttpBody(data="\n".join(map(json.dumps, rows)).encode())
        request = api.ImportCustomersRequest(format="NDJSON", file=piece)
        return stub.ImportCustomers, iter([request])

    def check(self) -> bool:
        """Compare the effects with the audit. Raises AssertionError."""
        pattern = self.prefix + "%"
        rows = self._hub.sql("SELECT request_id, outcome, phase FROM hub.audit_entry")
        entries = [Entry(*row) for row in rows if row[0] in self.account.method]
        records = dict(self._hub.sql(
            "SELECT customer_id, source_id FROM data.customers WHERE customer_id LIKE $1", pattern
        ))  # fmt: skip
        logged = self._hub.sql("SELECT DISTINCT key FROM hub.change WHERE key LIKE $1", pattern)
        problems = differences(self.account, entries, records, {key for (key,) in logged})
        assert not problems, problems[:5]
        return True


#: Outcomes that leave open whether the hub has done anything.
_UNKNOWN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN)


async def _answer(call: Any, kind: str) -> None:
    if kind == "export":
        async for _ in call:
            pass
    else:
        await call


def _record(key: str, mark: str) -> Customer:
    return Customer(customer_id=key, name="x", source_id=mark)


def _worker_socket(hub: RunningHub) -> Path:
    return min(sockets_folder(hub.data).glob("worker-*.sock"))


def _worker(hub: RunningHub, socket: Path) -> psutil.Process:
    return next(p for p in hub.processes("worker") if str(socket) in p.cmdline())


async def test_effects_are_entries(own_hub: RunningHub) -> None:
    print(f"PENSTOCK_FUZZ_SEED={SEED}")
    clients = await asyncio.to_thread(Clients, own_hub, SEED)
    outcomes = clients.account.outcomes
    socket = _worker_socket(own_hub)
    await clients.run(socket, iter(range(CALLS)))
    # A call that was cancelled last may still be running.
    await asyncio.to_thread(eventually, clients.check)
    print(dict(outcomes), dict(Counter(clients.account.method.values())))
    assert outcomes["CANCELLED"] > CALLS * 0.1, "too few calls were cancelled in time"
    assert outcomes["OK"] > CALLS * 0.1, "too few calls were answered"

    worker = _worker(own_hub, socket)
    killed = asyncio.Event()
    # The clients continue until the worker is dead, so that some calls are running then.
    calls = asyncio.create_task(clients.run(socket, iter(killed.is_set, True)))
    enough = len(clients.account.received) + 20
    await asyncio.to_thread(eventually, lambda: len(clients.account.received) >= enough)
    worker.kill()
    await asyncio.to_thread(worker.wait, PATIENCE)
    killed.set()
    await asyncio.wait_for(calls, PATIENCE)
    assert outcomes["UNAVAILABLE"], "nothing was under way when the worker was killed"
    await asyncio.to_thread(eventually, clients.check)


def test_the_comparison_finds_what_has_no_entry() -> None:
    """The control: the comparison finds each kind of difference."""
    account = Account(
        method=dict.fromkeys("abcd", "x"),
        received={"a"},
        refused={"b"},
        wrote={"c": {"k": "m"}},
        deleted={"d": "gone"},
    )
    sound = [Entry("a", "OK", "CALL"), Entry("b", "PERMISSION_DENIED", "CALL"),
             Entry("c", "OK", "CALL"), Entry("d", "OK", "CALL")]  # fmt: skip
    records, known = {"k": "m"}, {"k", "gone"}
    assert differences(account, sound, records, known) == []
    for missing in range(4):
        left = [e for i, e in enumerate(sound) if i != missing]
        assert len(differences(account, left, records, known)) == 1, missing
    assert differences(account, sound, {"k": "m", "alien": "z"}, known)
    assert differences(account, sound, {}, {"gone"}), "an entry without its effect"
    assert differences(account, [*sound, sound[2]], records, known), "two entries of one effect"
    assert differences(account, sound, records | {"gone": "m"}, known)
