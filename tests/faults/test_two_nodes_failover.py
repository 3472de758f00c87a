"""R14 and R13 at once: the database of two nodes fails over while both write and have followers.

Watchers at each node, and the workers of one subscription at both, continue by themselves, each
under a validator. With a synchronous standby nothing is lost, and no cursor is refused. With one
that lags some acknowledged writes are undone: consumers that received them are told to repair, do
so from an export while others write, and continue exactly. ``PENSTOCK_R14_ROUNDS`` is the number of
rounds of each case.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import shutil
import threading
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp
import grpc
import pytest
from google.protobuf import json_format

from chance import SEED
from clusters import Cluster
from faults.server_place import ServerPlace
from faults.streams import Consumer, Judge, LineConsumer
from faults.test_feed_equation import exported, records
from faults.traffic import Traffic
from faults.validator import FeedValidator, State, Write
from feeds import CATALOG, at, number, refused, told
from harness import RunningHub, eventually, folder, free_port
from penstock.hub.v1 import subscriptions_pb2
from places import PLACES

pytestmark = pytest.mark.lane(priority=9)

ROUNDS = int(os.environ.get("PENSTOCK_R14_ROUNDS", "1"))
#: The rows that are written before, between and after the faults.
BETWEEN = 60
CLIENTS = 2
REFUSED = ("INVALID_ARGUMENT", "CURSOR_INVALID")


class World(ServerPlace):
    """Two nodes on a port behind which servers change; ``here`` is the current one."""

    def __init__(self, data: Path) -> None:
        super().__init__(data)
        common = {
            "PENSTOCK_DATABASE_URL": self.here.url,
            "PENSTOCK_WORKERS": "1",
            "PENSTOCK_PUBLIC_URL": "http://hub.example.com",
            "PENSTOCK_WEBHOOK_ALLOW": "127.0.0.0/8,::1/128",
        }
        near, far = (RunningHub(data / name, customers=20) for name in ("near", "far"))
        near.environment |= common
        near.start()
        secret = (near.data / "secret").read_text().strip()
        far.environment |= {**common, "PENSTOCK_SECRET": secret}
        far.command("up", "--detach")
        shutil.copy(near.data / "demo.json", far.data)
        self.near, self.far = self.nodes = near, far

    def standby(self, *, synchronous: bool) -> Cluster:
        """A running standby that has all data so far."""
        standby = self.here.standby(self.fresh())
        standby.start(free_port())
        if synchronous:
            self.here.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
            self.here.sql("SELECT pg_reload_conf()")
            state = "SELECT sync_state FROM pg_stat_replication"
            eventually(lambda: self.here.sql(state) == [("sync",)])
        eventually(lambda: standby.caught_up(self.here))
        return standby

    def cut_off(self, standby: Cluster) -> None:
        """Let a standby receive nothing more, not from the archive either."""
        eventually(lambda: standby.caught_up(self.here))
        standby.stop()
        self.here.sql("SELECT pg_switch_wal()")

    def take_over(self, standby: Cluster) -> None:
        """Replace the server, which was killed, by the standby."""
        standby.stop()
        standby.start(self.port)
        standby.promote()
        self.here = standby

    def last_number(self) -> int:
        """The newest number that was given out."""
        return int(self.here.sql("SELECT last_number FROM hub.log_head")[0][0])

    def fork(self) -> int:
        """The last number before the newest epoch."""
        rows = self.here.sql("SELECT last_number FROM hub.epoch ORDER BY epoch DESC LIMIT 1")
        return int(rows[0][0])

    def stop(self) -> None:
        """Stop everything."""
        self.far.stop()
        self.near.stop()
        self.here.stop()


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with folder() as data:
        made = World(data)
        try:
            yield made
        finally:
            made.stop()


class Account:
    """What the writers of both nodes know about their writes."""

    def __init__(self, writers: Sequence[Traffic]) -> None:
        self.writers = writers
        self._sound = self._dead = [0, 0]

    def begun(self) -> list[int]:
        """A position that separates the writes that each has begun from later ones."""
        return [writer.begun for writer in self.writers]

    async def more(self) -> None:
        """Return when each writer has that many more acknowledged."""
        wanted = [len(w.acked) + BETWEEN for w in self.writers]
        enough = partial(zip, self.writers, wanted, strict=True)
        await asyncio.to_thread(
            eventually, lambda: all(len(w.acked) >= count for w, count in enough())
        )

    def sound(self) -> None:
        """All writes that are acknowledged by now must survive."""
        self._sound = [len(w.acked) for w in self.writers]

    def dead(self) -> None:
        """Writes that were acknowledged since then may be undone; later ones must not be."""
        self._dead = [len(w.acked) for w in self.writers]

    def acked(self, places: Sequence[int] = (0, 0)) -> list[Write]:
        """The writes that must survive, of those that began after ``places`` (see ``begun``)."""
        bounds = zip(self.writers, places, self._sound, self._dead, strict=True)
        return [
            write
            for writer, place, sound, dead in bounds
            for write in (*writer.acked[:sound], *writer.acked[dead:])
            if int(write.mark[1:]) >= place
        ]

    def undone(self, table: State) -> list[Write]:
        """The acknowledged writes whose records are missing."""
        pairs = zip(self.writers, self._sound, self._dead, strict=True)
        between = [write for w, sound, dead in pairs for write in w.acked[sound:dead]]
        return [w for w in between if (w.dataset, w.key) not in table]

    @property
    def tried(self) -> list[Write]:
        """All writes that may survive."""
        return [write for w in self.writers for write in self._of(w)]

    @staticmethod
    def _of(writer: Traffic) -> list[Write]:
        return [*writer.acked, *writer.unknown]


@dataclass
class Follower:
    """Follows under one judge after the other: a new one for each repair.

    ``since`` separates the writes before the current judge from later ones.
    """

    world: World
    account: Account
    judge: Judge
    since: list[int] = field(default_factory=lambda: [0, 0])
    ended: list[Judge] = field(default_factory=list)

    def repair(self, hub: RunningHub) -> str:
        """Start again from an export through a node; returns its cursor."""
        self.judge.validator.check()
        cursor, data = eventually(lambda: self._state(hub))
        # Every write that begins from now on comes after it.
        self.since = self.account.begun()
        # No writer uses other datasets.
        rest = {k: v for k, v in self.world.table().items() if k[0] != "customers"}
        validator = FeedValidator(CATALOG, number(cursor), {**rest, **records(data)})
        before, self.judge = self.judge, Judge(validator, cursor)
        self.ended.append(before)
        return str(cursor)

    @staticmethod
    def _state(hub: RunningHub) -> tuple[str, bytes] | None:
        """An export, unless its state contains a change without a number: that change would not
        come again, and a validator would take it for a gap."""
        cursor, data = exported(hub, "admin", "NDJSON")
        return None if PLACES.open(cursor).ahead else (cursor, data)

    def arrived(self, place: int) -> bool:
        """Whether everything up to a number has arrived."""
        return self.judge.arrived(place)

    def check(self, table: State, marks: dict[int, bytes]) -> None:
        """Judge everything since the start or the last repair."""
        validator = self.judge.validator
        validator.finish(table, self.account.acked(self.since), self.account.tried, marks)
        validator.check()


@dataclass
class Watcher(Follower):
    """Holds streams at one node."""

    hub: RunningHub = field(kw_only=True)
    kind: type[Consumer] = field(kw_only=True)

    async def follow(self, going: asyncio.Event) -> None:
        """Follow until ``going`` is cleared."""
        while going.is_set():
            consumer = self.kind(self.hub.port, self.hub.api_key, self.judge)
            try:
                await consumer.follow(going)
            except (grpc.RpcError, aiohttp.ClientResponseError):
                await asyncio.to_thread(eventually, self.is_refused)
                await asyncio.to_thread(self.repair, self.hub)

    def is_refused(self) -> bool:
        """Whether its cursor belongs to an undone state."""
        return refused(self.hub, dataset="", cursor=self.judge.cursor) == REFUSED


class Workers(Follower):
    """The workers of one subscription, one at each node."""

    def begin(self) -> None:
        """Create the subscription at the judge's start."""
        self.name, self.done = f"s-{uuid.uuid4().hex[:12]}", threading.Event()
        self._lock = threading.Lock()
        body = {
            "subscription": {"subscriptionId": self.name, "includeBefore": True},
            "start": self.judge.cursor,
        }
        made = self.world.near.request(
            "POST", "/v1/subscriptions", consumer="admin", json_body=body
        )
        assert made.status == 200, made.text

    def work(self, hub: RunningHub) -> None:
        """Pull and acknowledge through a node until told to stop."""
        while not self.done.is_set():
            repairs = len(self.ended)
            status, reason, pulled = self._call(
                hub, "pull", maxChanges=50, ackSeconds=60, wait="1s"
            )
            with self._lock:
                if status >= 500 or repairs != len(self.ended):
                    # The node is away; or the leased changes are from before the reset.
                    self.done.wait(0.1)
                elif (status, reason) == (400, "CURSOR_INVALID"):
                    cursor = self.repair(hub)
                    eventually(lambda: self._call(hub, "reset", start=cursor)[0] == 200)  # noqa: B023  # it is called here
                else:
                    assert status == 200, reason
                    self._process(hub, pulled)

    def _process(self, hub: RunningHub, data: bytes) -> None:
        pulled = json_format.Parse(data, subscriptions_pb2.PullChangesResponse())
        if not pulled.HasField("lease"):
            return
        self.judge.again()
        self.judge.changes(told(change) for change in pulled.changes)

        def answered() -> int:
            status, *_ = self._call(hub, "acknowledge", leaseId=pulled.lease.lease_id)
            return status if status < 500 else 0

        if eventually(answered) == 200:
            self.judge.cursor = pulled.lease.cursor

    def _call(self, hub: RunningHub, verb: str, **body: object) -> tuple[int, str, bytes]:
        """Status, reason and body; 503 for a node that does not answer."""
        path, key = f"/v1/subscriptions/{self.name}:{verb}", {"x-api-key": hub.api_key}
        try:
            reply = hub.request("POST", path, headers=key, json_body=body)
        except (OSError, http.client.HTTPException):
            return 503, "", b""
        return reply.status, reply.reason if reply.status == 400 else "", reply.body


@contextlib.asynccontextmanager
async def writing(writers: Sequence[Traffic]) -> AsyncIterator[None]:
    """Let clients of both nodes write during the block."""
    going = asyncio.Event()
    going.set()
    tasks = [asyncio.create_task(w.client(i, going)) for w in writers for i in range(CLIENTS)]
    try:
        yield
    finally:
        going.clear()
        await asyncio.gather(*tasks)


@contextlib.asynccontextmanager
async def following(
    group: asyncio.TaskGroup, watchers: Sequence[Watcher], workers: Workers
) -> AsyncIterator[asyncio.Event]:
    """Let watchers, and workers at both nodes, follow until the block ends; its end clears the
    event."""
    going = asyncio.Event()
    going.set()
    for watcher in watchers:
        group.create_task(watcher.follow(going))
    for hub in workers.world.nodes:
        group.create_task(asyncio.to_thread(workers.work, hub))
    try:
        yield going
    finally:
        going.clear()
        workers.done.set()


async def fail_over(
    world: World, account: Account, watchers: list[Watcher], *, synchronous: bool
) -> None:
    """Replace the server while clients write. If the standby is not synchronous, some writes are
    undone that the watchers have received."""
    standby = await asyncio.to_thread(world.standby, synchronous=synchronous)
    writers = account.writers
    async with writing(writers):
        await account.more()
        account.sound()
        if not synchronous:
            await asyncio.to_thread(world.cut_off, standby)
        await account.more()
        place = await asyncio.to_thread(world.last_number)
        for watcher in watchers:
            await asyncio.to_thread(eventually, partial(watcher.arrived, place))
        await asyncio.to_thread(world.here.kill)
    if synchronous:
        account.sound()
    account.dead()
    async with writing(writers):
        await asyncio.to_thread(world.take_over, standby)
        await account.more()
    fork = await asyncio.to_thread(world.fork)
    assert (fork < place) is not synchronous


@pytest.mark.slow
@pytest.mark.parametrize(
    "synchronous", [True, False] * ROUNDS, ids=["synchronous", "asynchronous"] * ROUNDS
)
async def test_both_nodes_are_followed_exactly_over_a_failover(
    world: World, *, synchronous: bool
) -> None:
    print(f"PENSTOCK_FUZZ_SEED={SEED}")
    near, far = world.nodes
    place = await asyncio.to_thread(near.head)
    before = await asyncio.to_thread(world.table)
    start = await asyncio.to_thread(at, near, place)

    def judge() -> Judge:
        return Judge(FeedValidator(CATALOG, place, dict(before)), start)

    async with (
        Traffic(near.url, near.api_key, SEED) as one,
        Traffic(far.url, near.api_key, SEED) as two,
        asyncio.TaskGroup() as group,
    ):
        account = Account([one, two])
        watchers = [
            Watcher(world, account, judge(), hub=near, kind=Consumer),
            Watcher(world, account, judge(), hub=far, kind=LineConsumer),
        ]
        # A watcher that has received nothing that may be undone.
        late = Watcher(world, account, judge(), hub=far, kind=Consumer)
        workers = Workers(world, account, judge())
        await asyncio.to_thread(workers.begin)
        # Each failover ends the subscription with REPAIR: acknowledged changes may be undone.
        repairs = [0, 0, 0, 1] if synchronous else [1, 1, 0, 1]
        followers = (*watchers, late, workers)
        async with following(group, watchers, workers) as going:
            await fail_over(world, account, watchers, synchronous=synchronous)
            group.create_task(late.follow(going))
            await asyncio.to_thread(
                eventually, lambda: [len(f.ended) for f in followers] == repairs
            )
            head = await asyncio.to_thread(near.head)
            for follower in followers:
                await asyncio.to_thread(eventually, partial(follower.arrived, head))
    table, marks = await asyncio.to_thread(world.table), await asyncio.to_thread(world.marks)
    for follower in followers:
        follower.check(table, marks)
    undone = account.undone(table)
    print(f"{len(account.acked())} writes stand, {len(undone)} records were undone")
    assert [len(f.ended) for f in followers] == repairs
    assert not (synchronous and undone)
