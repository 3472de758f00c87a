"""R12: consumers whose access is reduced or changed see nothing more on open streams.

PENSTOCK_R12_STREAMS sets the number of streams that are open at a change.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from feeds import CLEAR, Made, consumer_with, credentials, failure, grant, here, patch, put, refused
from harness import ATTEMPTS, PATIENCE, RunningHub, eventually, promptly
from penstock.api.v1 import customers_service_pb2 as api
from penstock.api.v1.customers_service_pb2_grpc import CustomersStub
from penstock.hub.v1 import changes_pb2

STREAMS = int(os.environ.get("PENSTOCK_R12_STREAMS", "50"))
#: Envoy spreads the streams of one connection over the workers.
CONNECTIONS = 5
WITHIN = 5.0

STOP, REPAIR = changes_pb2.STOP, changes_pb2.REPAIR
DENIED, ABORTED = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.ABORTED

_HASHED = grant("customers", "status = ACTIVE", CLEAR, email="hash")
_NARROWER = grant("customers", 'status = ACTIVE AND name = "x"')
_OTHER = grant("customers", "status = LEAD")
_WIDER = grant("customers")
START = grant("customers", "status = ACTIVE")


@dataclass(frozen=True)
class Case:
    """A change of access, and the end of the streams that it causes."""

    change: Callable[[Made], object]
    code: grpc.StatusCode
    reason: str
    reconcile: int


CASES = {
    "revoked": Case(
        lambda m: m.administer("POST", f"/consumers/{m.name}/credentials/{m.credential}:revoke"),
        DENIED,
        "ACCESS_CHANGED",
        STOP,
    ),
    "disabled": Case(
        lambda m: m.administer(
            "PATCH", f"/consumers/{m.name}", {"active": False}, update_mask="active"
        ),
        DENIED,
        "ACCESS_CHANGED",
        STOP,
    ),
    "no longer granted": Case(lambda m: m.regrant(), DENIED, "ACCESS_CHANGED", STOP),
    "masked": Case(lambda m: m.regrant(_HASHED), DENIED, "ACCESS_CHANGED", REPAIR),
    "fewer rows": Case(lambda m: m.regrant(_NARROWER), DENIED, "ACCESS_CHANGED", REPAIR),
    "other rows": Case(lambda m: m.regrant(_OTHER), DENIED, "ACCESS_CHANGED", REPAIR),
    "more rows": Case(lambda m: m.regrant(_WIDER), ABORTED, "VIEW_CHANGED", REPAIR),
}


@contextlib.contextmanager
def written(hub: RunningHub, key: str) -> Iterator[None]:
    """Change a record that all of them see, again and again during the block."""
    over = threading.Event()

    def write() -> None:
        for turn in itertools.count():
            patch(hub, "customers", key, sourceId=str(turn))
            if over.wait(0.05):
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        over.set()
        writer.join()


@dataclass
class Watched:
    """One stream: the commit time of the last change that it delivered, and its end."""

    began: asyncio.Event = field(default_factory=asyncio.Event)
    latest: float = 0.0
    end: Any = None
    failed: tuple[grpc.StatusCode, str] | None = None

    async def watch(self, stub: Any, cursor: str, metadata: Any) -> None:
        request = api.WatchCustomersRequest(cursor=cursor)
        try:
            async for message in stub.WatchCustomers(request, metadata=metadata, timeout=PATIENCE):
                if message.changes:
                    self.began.set()
                    self.latest = message.changes[-1].commit_time.ToNanoseconds() / 1e9
                assert self.end is None, "something came after the end"
                if message.HasField("end"):
                    self.end = message.end
        except grpc.RpcError as error:
            self.failed = failure(error)
        finally:
            self.began.set()


async def changed(hub: RunningHub, made: Made, case: Case, cursor: str) -> tuple[float, Any]:
    """All streams, until they have ended after the change; the time of the change, and their
    data."""
    watched = [Watched() for _ in range(STREAMS)]
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        stubs: list[Any] = []
        for i in range(CONNECTIONS):
            options = (("grpc.use_local_subchannel_pool", 1), ("penstock.test", i))
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{hub.port}", options=options)
            stubs.append(CustomersStub(await stack.enter_async_context(channel)))
        metadata = credentials(hub, made.key)
        tasks = [
            group.create_task(one.watch(stubs[i % CONNECTIONS], cursor, metadata))
            for i, one in enumerate(watched)
        ]
        await asyncio.gather(*(one.began.wait() for one in watched))
        assert not any(one.failed for one in watched), [w.failed for w in watched if w.failed]
        await asyncio.to_thread(case.change, made)
        moment = time.time()
        await asyncio.gather(*tasks)
    return moment, watched


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_authorised_after_the_change(hub: RunningHub, name: str) -> None:
    case, key = CASES[name], f"t-{uuid.uuid4().hex[:12]}"
    put(hub, "customers", {"customerId": key, "name": "x", "status": "ACTIVE", "email": "a@b.c"})
    made: list[Made] = []

    def attempt() -> float:
        with consumer_with(hub, START) as one:
            made.append(one)
            cursor = here(hub)
            with written(hub, key):
                moment, watched = asyncio.run(changed(hub, one, case, cursor))
        for stream in watched:
            assert stream.failed == (case.code, case.reason)
            assert stream.end is not None and stream.end.reason == case.reason
            assert stream.end.reconcile == case.reconcile and stream.end.message
            # The end of the segment: nothing at or below the cursor is missing.
            assert stream.end.receipt.state == stream.end.receipt.COMPLETE
            assert stream.end.receipt.cursor == stream.end.cursor
        return max(0.0, float(max(one.latest for one in watched)) - moment)

    taken = promptly(WITHIN, attempt)
    print(f"{name}: {STREAMS} streams, the last change {taken:.2f} s later")
    assert len(made) <= ATTEMPTS


def test_others_go_on(hub: RunningHub) -> None:
    """Negative control: a stream ends only for a change of its own access."""
    key = f"t-{uuid.uuid4().hex[:12]}"
    put(hub, "customers", {"customerId": key, "name": "x", "status": "ACTIVE"})
    with consumer_with(hub, START) as one, consumer_with(hub, START) as other:
        stream = Watched()

        async def run() -> None:
            address = f"127.0.0.1:{hub.port}"
            async with grpc.aio.insecure_channel(address) as channel, asyncio.TaskGroup() as group:
                cursor = await asyncio.to_thread(here, hub)
                metadata = credentials(hub, other.key)
                task = group.create_task(stream.watch(CustomersStub(channel), cursor, metadata))
                await asyncio.to_thread(one.regrant, _HASHED)
                await asyncio.to_thread(one.regrant)
                await asyncio.to_thread(other.regrant, START)
                await asyncio.to_thread(hub.settle)
                moment = time.time()
                later = lambda: stream.latest > moment or task.done()  # noqa: E731
                await asyncio.to_thread(eventually, later)
                assert not task.done(), stream
                task.cancel()

        with written(hub, key):
            asyncio.run(run())
        assert stream.failed is None and stream.end is None


def test_a_poll_that_waits_is_answered_by_the_rules_of_now(hub: RunningHub) -> None:
    key = f"t-{uuid.uuid4().hex[:12]}"
    with consumer_with(hub, START) as made:
        cursor = here(hub)
        replies: list[Any] = []

        def poll() -> None:
            query = {"cursor": cursor, "wait": "30s"}
            headers = dict(credentials(hub, made.key))
            replies.append(
                hub.request("GET", "/v1/customers:changes", headers=headers, query=query)
            )

        waiting = [threading.Thread(target=poll) for _ in range(6)]
        for one in waiting:
            one.start()
        made.regrant(grant("customers", "status = ACTIVE", CLEAR, email="hide"))
        hub.settle()
        put(
            hub,
            "customers",
            {"customerId": key, "name": "x", "status": "ACTIVE", "email": "secret@b.example"},
        )
        for one in waiting:
            one.join()
        for reply in replies:
            assert reply.status == 200 and "secret" not in reply.text, reply.text
        hub.head()  # a poll returns a change only after it has its number
        again = hub.request(
            "GET",
            "/v1/customers:changes",
            headers=dict(credentials(hub, made.key)),
            query={"cursor": cursor},
        )
        assert [c["key"] for c in again.json()["changes"]] == [key]
        made.regrant()
        hub.settle()
        assert refused(hub, made.key, cursor=cursor) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
