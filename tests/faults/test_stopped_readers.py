"""R5: many follow the feed, some stop reading; and the number of streams of one consumer is
limited.

PENSTOCK_R5_STREAMS sets the number of streams; every tenth stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import math
import os
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from feeds import Made, consumer_with, credentials, failure, grant, lines, patch, put
from harness import PATIENCE, RunningHub, eventually, folder, promptly
from penstock.api.v1 import customers_service_pb2 as api
from penstock.api.v1.customers_service_pb2_grpc import CustomersStub

pytestmark = pytest.mark.lane(priority=3)

STREAMS = int(os.environ.get("PENSTOCK_R5_STREAMS", "200"))
STOPPED = STREAMS // 10
#: Streams of one consumer, which also share a connection.
MOST = 60
#: Fewer bytes than this are in transit between the hub and a client that stands still.
ON_THE_WAY = 12 * 1024 * 1024
NOTES = 450_000
#: A stopped reader is closed within this many seconds.
WITHIN = 30.0
#: The bytes by which a worker may grow: far less than the stopped readers have not taken.
GROWTH = 256 * 1024 * 1024


@pytest.fixture(scope="module")
def impatient() -> Iterator[RunningHub]:
    """A hub that soon ends streams whose clients read nothing, and limits the streams of each
    consumer."""
    environment = {
        "PENSTOCK_WORKERS": "1",
        "PENSTOCK_STREAM_STALL_SECONDS": "2",
        "PENSTOCK_MAX_STREAMS": str(MOST),
    }
    with folder() as data:
        hub = RunningHub(data / "hub", customers=5, environment=environment)
        hub.start()
        try:
            yield hub
        finally:
            hub.stop()


def judge(told: Sequence[str], first: int, last: int) -> None:
    """Raises AssertionError unless all turns from one to another arrived once and in order."""
    wanted = [str(turn) for turn in range(first, last + 1)]
    lost = sorted(set(wanted) - set(told), key=int)
    assert not lost, f"{len(lost)} changes are lost, the first is {lost[0]}"
    assert list(told) == wanted, "changes came twice, or not in order"


@dataclass
class Reading:
    """A reader that keeps up: the names that it received, one for each turn; when they arrived, and
    how long after their commits."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    told: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)

    async def read(self, call: Any, last: asyncio.Future[int]) -> None:
        """Read until the last turn has arrived."""
        try:
            async for message in call:
                self.begun.set()
                for change in message.changes:
                    self.told.append(change.after.name)
                    self.times.append(time.time())
                    self.delays.append(time.time() - change.commit_time.ToNanoseconds() / 1e9)
                if last.done() and self.told and int(self.told[-1]) >= last.result():
                    return
        finally:
            self.begun.set()
            call.cancel()


@dataclass
class Stopping:
    """A reader over HTTP with small buffers that reads one checkpoint and then stops."""

    reply: http.client.HTTPResponse
    receipt_id: str
    cursor: str = ""

    def read_some(self) -> None:
        """Read up to the first checkpoint."""
        for message in lines(self.reply):
            if "checkpoint" in message:
                self.cursor = message["checkpoint"]["cursor"]
                return


@contextlib.contextmanager
def narrow(hub: RunningHub, made: Made, **query: Any) -> Iterator[http.client.HTTPResponse]:
    """A stream over HTTP whose client has the smallest possible buffers."""
    channel = socket.socket()
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    channel.settimeout(PATIENCE)
    channel.connect(("127.0.0.1", hub.port))
    connection = http.client.HTTPConnection("127.0.0.1", hub.port)
    connection.sock = channel
    with contextlib.closing(connection):
        headers = {**dict(credentials(hub, made.key)), "accept": "application/x-ndjson"}
        connection.request("GET", f"/v1/customers:watch?{urlencode(query)}", headers=headers)
        with contextlib.closing(connection.getresponse()) as reply:
            assert reply.status == 200, reply.read()
            yield reply


class Scene:
    """One record, changed turn by turn, and its followers."""

    def __init__(self, hub: RunningHub, consumers: Sequence[Made]) -> None:
        self._hub, self._consumers = hub, consumers
        self._key = f"t-{uuid.uuid4().hex[:12]}"
        self._turns = itertools.count()
        self.filter = f'customer_id = "{self._key}"'
        self.last = -1
        self.grown = 0
        self.began = 0.0
        self.closed: list[float] = []
        put(hub, "customers", {"customerId": self._key, "name": "new"})

    def change(self, **values: Any) -> None:
        """Make the next turn's change."""
        self.last = next(self._turns)
        patch(self._hub, "customers", self._key, name=str(self.last), **values)

    def readers(self, stack: contextlib.AsyncExitStack) -> Iterator[Any]:
        """The calls of readers that keep up; they request only the name."""
        request = api.WatchCustomersRequest(
            fields="customer_id,name", filter=self.filter, heartbeat_seconds=1
        )
        options = (("grpc.use_local_subchannel_pool", 1),)
        for i, made in enumerate(self._consumers[1:]):
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{self._hub.port}", options=options)
            stack.push_async_callback(channel.close)
            stub = CustomersStub(channel)
            for _ in range(min(MOST, STREAMS - STOPPED - i * MOST)):
                yield stub.WatchCustomers(
                    request, metadata=credentials(self._hub, made.key), timeout=PATIENCE
                )

    def stopping(self, stack: contextlib.ExitStack) -> list[Stopping]:
        """The streams that will stop; they request all fields."""
        found = []
        for _ in range(STOPPED):
            stream = narrow(self._hub, self._consumers[0], filter=self.filter)
            reply = stack.enter_context(stream)
            found.append(Stopping(reply, next(lines(reply))["begin"]["receiptId"]))
        return found

    def ends(self, stopped: Sequence[Stopping]) -> list[tuple[Any, ...]]:
        """The state, reason and time of the streams that the hub has ended."""
        return self._hub.sql(
            "SELECT r.state, r.reason, e.outcome, extract(epoch FROM r.finish_time)"
            " FROM hub.receipt AS r"
            " JOIN hub.audit_entry AS e ON e.request_id = r.request_id AND e.phase = 'END'"
            " WHERE r.receipt_id = ANY ($1)",
            [one.receipt_id for one in stopped],
        )

    def write(self, stopped: Sequence[Stopping]) -> None:
        """Write until all stopped streams are closed, and then some more.

        ``began`` and ``closed`` are the times of the start and of each close; ``grown`` is the most
        bytes by which the worker grew.
        """
        (worker,) = self._hub.processes("worker")
        before = worker.memory_info().rss
        self.began = time.time()
        for turn in itertools.count():
            # Large enough that no buffer on the way can hold all of it.
            large = turn * NOTES < ON_THE_WAY
            self.change(notes=str(turn % 10) * NOTES if large else "small")
            self.grown = max(self.grown, worker.memory_info().rss - before)
            if not large and len(ends := self.ends(stopped)) == len(stopped):
                break
        assert {end[:3] for end in ends} == {("FAILED", "CLIENT_STALLED", "CLIENT_STALLED")}
        for _ in range(3):
            self.change()
        self.closed = [float(end[3]) for end in ends]

    def resume(self, one: Stopping) -> None:
        """Continue from the last checkpoint: nothing is missing, and nothing is repeated."""
        told: list[str] = []
        with narrow(self._hub, self._consumers[0], filter=self.filter, cursor=one.cursor) as reply:
            for message in lines(reply):
                told += [change["after"]["name"] for change in message.get("changes", ())]
                if told and told[-1] == str(self.last):
                    break
        judge(told, 1, self.last)


async def follow(scene: Scene) -> tuple[list[Reading], list[Stopping]]:
    """Run readers that keep up and readers that stop, during ``Scene.write``."""
    loop = asyncio.get_running_loop()
    last: asyncio.Future[int] = loop.create_future()
    async with contextlib.AsyncExitStack() as stack:
        readers = [Reading() for _ in range(STREAMS - STOPPED)]
        calls = list(scene.readers(stack))
        assert len(calls) == len(readers)
        with contextlib.ExitStack() as still:
            async with asyncio.TaskGroup() as group:
                for reader, call in zip(readers, calls, strict=True):
                    group.create_task(reader.read(call, last))
                await asyncio.gather(*(reader.begun.wait() for reader in readers))
                stopped = await asyncio.to_thread(scene.stopping, still)
                await asyncio.to_thread(scene.change)
                for one in stopped:
                    await asyncio.to_thread(one.read_some)
                await asyncio.to_thread(scene.write, stopped)
                last.set_result(scene.last)
                await asyncio.to_thread(scene.change)
    return readers, stopped


@pytest.fixture(scope="module")
def consumers(impatient: RunningHub) -> Iterator[list[Made]]:
    """As many consumers as needed: the stopped streams belong to one, the reading ones to the
    others."""
    count = 1 + -(-(STREAMS - STOPPED) // MOST)
    with contextlib.ExitStack() as stack:
        rights = grant("customers")
        yield [stack.enter_context(consumer_with(impatient, rights)) for _ in range(count)]


def test_who_stops_reading_is_closed_and_hurts_nobody(
    impatient: RunningHub, consumers: list[Made]
) -> None:
    def attempt() -> float:
        scene = Scene(impatient, consumers)
        readers, stopped = asyncio.run(follow(scene))
        for reader in readers:
            judge(reader.told[: scene.last], 0, scene.last - 1)
        for one in stopped:
            scene.resume(one)
        assert scene.grown < GROWTH, f"the worker grew by {scene.grown >> 20} MiB"
        seconds = max(scene.closed) - scene.began
        delays = sorted(delay for reader in readers for delay in reader.delays)
        print(
            f"{STREAMS} streams, {STOPPED} stopped: the last was closed {seconds:.1f} s later,"
            f" {scene.last} changes, the worker grew by {scene.grown >> 20} MiB; delays of the"
            f" others p50 {delays[len(delays) // 2] * 1e3:.0f} ms,"
            f" p99 {delays[len(delays) * 99 // 100] * 1e3:.0f} ms"
        )
        # The others get changes while those stand still, not only after they are closed.
        unhurt = max(reader.times[1] for reader in readers) < min(scene.closed)
        return seconds if unhurt else math.inf

    promptly(WITHIN, attempt)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (["0", "1", "3"], "1 changes are lost, the first is 2"),
        (["0", "1", "2"], "1 changes are lost, the first is 3"),
        (["0", "1", "1", "2", "3"], "came twice"),
        (["0", "2", "1", "3"], "not in order"),
    ],
)
def test_the_judge_sees_what_is_wrong(told: list[str], words: str) -> None:
    """Negative control: the judge finds each fault."""
    judge(["0", "1", "2", "3"], 0, 3)
    with pytest.raises(AssertionError, match=words):
        judge(told, 0, 3)


# --- how many streams a consumer may hold ----------------------------------------------------


def opened(stub: CustomersStub, hub: RunningHub, consumer: str) -> Any:
    """A stream that has begun. Raises grpc.RpcError."""
    call = stub.WatchCustomers(
        api.WatchCustomersRequest(heartbeat_seconds=1),
        metadata=credentials(hub, consumer),
        timeout=PATIENCE,
    )
    assert next(call).HasField("begin")
    return call


def test_a_consumer_holds_only_so_many_streams(impatient: RunningHub) -> None:
    address = f"127.0.0.1:{impatient.port}"
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(consumer_with(impatient, grant("customers")))
        stub = CustomersStub(stack.enter_context(grpc.insecure_channel(address)))
        calls = [opened(stub, impatient, made.key) for _ in range(MOST)]
        for call in calls:
            stack.callback(call.cancel)
        with pytest.raises(grpc.RpcError) as caught:
            opened(stub, impatient, made.key)
        assert failure(caught.value) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
        status: Any = rpc_status.from_call(caught.value)  # type: ignore[arg-type]  # it is a call
        quota = error_details_pb2.QuotaFailure()
        (detail,) = [d for d in status.details if d.Is(quota.DESCRIPTOR)]
        detail.Unpack(quota)
        assert quota.violations[0].subject and quota.violations[0].description
        # Neither other consumers nor other calls of this one are affected.
        opened(stub, impatient, "admin").cancel()
        request = api.ListCustomersRequest(page_size=1)
        stub.ListCustomers(request, metadata=credentials(impatient, made.key), timeout=PATIENCE)

        calls[0].cancel()

        def again() -> bool:
            try:
                stack.callback(opened(stub, impatient, made.key).cancel)
            except grpc.RpcError:
                return False
            return True

        eventually(again)
        # Only one place had become free.
        with pytest.raises(grpc.RpcError):
            opened(stub, impatient, made.key)
