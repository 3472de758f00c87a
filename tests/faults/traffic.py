"""Writers through Envoy that record which writes were acknowledged and which may be stored."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from faults.validator import FeedValidator, Write
from harness import PATIENCE, eventually
from penstockd.errors import Refused
from penstockd.store.database import Database
from penstockd.store.log import last_number, read_changes

#: The seconds that a writer waits for an answer; a hub that hangs for longer counts as away.
ANSWER = 30.0
CONTENDED = 40
#: The rows that others write while an experiment waits for them.
BETWEEN = 100
#: The rows of a batch: new ones, and contended ones.
FRESH, SHARED = 20, 5
#: The most rows of one call. A client makes one call at a time.
MOST_ROWS = FRESH + SHARED


@dataclass
class Traffic:
    """Several clients that create, update and write batches; each write has a unique mark.

    A write whose call succeeded is in ``acked``. A refused write must not be stored, so it is in
    neither list. A write without an answer, or with an inconclusive one, is in ``unknown``.
    """

    url: str
    api_key: str
    seed: int
    acked: list[Write] = field(default_factory=list)
    unknown: list[Write] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    prefix: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    _marks: itertools.count[int] = field(default_factory=itertools.count)
    _contended: list[str] = field(default_factory=list)
    _session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Traffic:
        self._session = aiohttp.ClientSession(
            headers={"x-api-key": self.api_key},
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=ANSWER),
        )
        self._contended = [f"{self.prefix}-contended-{i}" for i in range(CONTENDED)]
        deadline = time.monotonic() + PATIENCE
        while await self.upsert(self._contended) != 200:  # after a fault, a worker may be away
            if time.monotonic() > deadline:
                await self._session.close()
                raise AssertionError(f"the hub takes no writes: {dict(self.outcomes)}")
            await asyncio.sleep(0.1)
        # From here on, a test may count outcomes.
        self.outcomes.clear()
        self.outcomes["200"] = len(self._contended)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def client(self, name: int, going: asyncio.Event) -> None:
        """Write until ``going`` is cleared."""
        chance = random.Random(f"{self.seed}-{name}")
        for turn in itertools.count():
            if not going.is_set():
                return
            kind = chance.random()
            if kind < 0.3:
                status = await self.create(f"{self.prefix}-{name}-{turn}")
            elif kind < 0.8:
                status = await self.update(chance.choice(self._contended))
            else:
                fresh = [f"{self.prefix}-{name}-{turn}-{i}" for i in range(FRESH)]
                status = await self.upsert([*fresh, *chance.sample(self._contended, SHARED)])
            if status is None or status >= 500:
                await asyncio.sleep(0.2)  # the hub is away: do not spin

    async def create(self, key: str, *, alone: bool = False) -> int | None:
        """One new record; ``alone`` on a connection of its own."""
        write = self._write(key)
        return await self._send("POST", "", [write], _record(write), alone)

    async def update(self, key: str) -> int | None:
        """Update one of the contended records."""
        write = self._write(key)
        body = {"sourceId": write.mark}
        return await self._send("PATCH", f"/{key}", [write], body)

    async def upsert(self, keys: Sequence[str]) -> int | None:
        """A batch of new records and contended ones."""
        writes = [self._write(key) for key in keys]
        body = {"customers": [_record(w) for w in writes]}
        return await self._send("POST", ":batchUpsert", writes, body)

    async def delete(self, key: str) -> int | None:
        """Delete one of the contended records, if it exists."""
        return await self._send("DELETE", f"/{key}", [Write("customers", key, "")], None)

    async def send(self, method: str, path: str, body: Any) -> int | None:
        """Make any other call, which is not recorded."""
        return await self._send(method, path, [], body)

    @property
    def begun(self) -> int:
        """A number above those in the marks of all writes so far, and below those of later
        writes."""
        return next(self._marks)

    def _write(self, key: str) -> Write:
        return Write("customers", key, f"w{next(self._marks)}")

    async def _send(
        self, method: str, path: str, writes: list[Write], body: Any, alone: bool = False
    ) -> int | None:
        assert self._session is not None
        url = f"{self.url}/v1/customers{path}"
        headers = {"connection": "close"} if alone else {}
        try:
            async with self._session.request(method, url, json=body, headers=headers) as reply:
                await reply.read()
                status = reply.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.outcomes[type(error).__name__] += len(writes)
            self.unknown += writes
            return None
        self.outcomes[str(status)] += len(writes)
        if status == 200:
            self.acked += writes
        elif status >= 500:
            self.unknown += writes
        return status


def others_write(traffic: Traffic) -> None:
    """Wait until others have written that many more rows."""
    enough = len(traffic.acked) + BETWEEN
    eventually(lambda: len(traffic.acked) >= enough)


def _record(write: Write) -> dict[str, str]:
    return {"customerId": write.key, "name": "x", "sourceId": write.mark}


class Follower:
    """Feeds a validator from the log while the database comes and goes."""

    def __init__(self, url: str, validator: FeedValidator) -> None:
        self._url = url
        self._validator = validator
        self.interruptions = 0

    async def follow(self, going: asyncio.Event) -> None:
        """Read until ``going`` is cleared and everything that has a number by then is read."""
        while True:
            database = Database(self._url, size=1)
            try:
                await database.open()
                return await self._read(database, going)
            except Refused:
                self.interruptions += 1
                await asyncio.sleep(0.05)
            finally:
                await database.close()

    async def _read(self, database: Database, going: asyncio.Event) -> None:
        validator = self._validator
        while True:
            over = not going.is_set()
            async with database.connection() as connection:
                changes = await read_changes(connection, validator.after, 1000)
                head = await last_number(connection)
            for change in changes:
                validator.change(change)
                if change.number == change.transaction:
                    validator.checkpoint(change.number)
            if over and validator.after == head:
                return
            if len(changes) < 1000:
                await asyncio.sleep(0.05)
