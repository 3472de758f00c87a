"""Leases of what only one process of all nodes may do at a time, and the fence around it.

A lease is a row: a name, a term that rises with each new holder, and a time at which it ends unless
it is renewed. The database's clock alone says whether it has ended. A holder stops by its own
monotonic clock before that moment. One that cannot stop, since it is frozen or cut off, writes
nothing afterwards: each of its transactions begins with locking the row of its term, and fails if
there is none. Raising the term waits for transactions that have it locked; who raises it ends the
sessions of those that do not end by themselves.

Nodes share the leases (see ``sharing``): a holder hands over what is in the share of another node,
and what is free is left to the node in whose share it is for a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog

from penstockd.errors import Refused
from penstockd.store.database import Connection, Database, Isolation, translated
from penstockd.store.own_session import ANSWER, OwnSession
from penstockd.store.session import cut_session
from penstockd.store.sharing import (
    HEAD_START,
    SETTLED,
    LiveNode,
    read_live_nodes,
    share_out,
    shares_elsewhere,
    with_node,
)

#: What only one node does at a time; see ``keeper``.
SINGLETONS = (
    "sequencer",
    "partitions",
    "stored-replies",
    "log-retention",
    "audit-sealer",
    "signing-keys",
    "webhooks",
    "webhook-retention",
)
#: Seconds for which a lease is given, and between two renewals.
LENGTH = 6.0
RENEWAL = 1.0
#: So many seconds before the end of its lease a holder stops by itself.
MARGIN = 1.0
#: How long a transaction of an earlier term may hold up the next one, in seconds.
BLOCKED = 0.5
#: Seconds for which a node leaves a task to others that failed again and again on it.
DECLINED = 300.0

_READ = """
SELECT name, term, node_id, host, extract(epoch FROM clock_timestamp() - expire_time)::float8,
       expire_time > clock_timestamp() + $1
FROM hub.singleton
"""
_SEED = """
INSERT INTO hub.singleton (name, term, node_id, host, acquire_time, expire_time)
SELECT name, 0, '', '', clock_timestamp(), clock_timestamp() FROM unnest($1::text[]) AS n (name)
ON CONFLICT DO NOTHING
"""
#: A time that no renewal can have given is of a clock that has gone back since.
_TAKE = """
UPDATE hub.singleton SET term = term + 1, node_id = $2, host = $3, acquire_time = clock_timestamp(),
       expire_time = clock_timestamp() + $4
WHERE name = $1 AND term = $5 AND (node_id = $6 OR expire_time <= clock_timestamp()
                                   OR expire_time > clock_timestamp() + $4)
RETURNING term, acquire_time
"""
_RENEW = """
UPDATE hub.singleton AS s SET expire_time = clock_timestamp() + $3
FROM unnest($1::text[], $2::bigint[], $4::timestamptz[]) AS h (name, term, acquire_time)
WHERE s.name = h.name AND s.term = h.term AND s.acquire_time = h.acquire_time
  AND s.expire_time > clock_timestamp()
RETURNING s.name
"""
_RELEASE = """
UPDATE hub.singleton SET expire_time = clock_timestamp()
WHERE name = $1 AND term = $2 AND acquire_time = $3
"""
_FENCE = """
SELECT true FROM hub.singleton
WHERE name = $1 AND term = $2 AND acquire_time = $3 AND expire_time > clock_timestamp()
FOR KEY SHARE
"""
_ALONE = "SELECT pg_try_advisory_xact_lock(hashtext('penstock.singleton'), hashtext($1))"
_END_BLOCKERS = """
SELECT pid, pg_terminate_backend(pid) FROM unnest(pg_blocking_pids($1)) AS b (pid)
"""

_log = structlog.get_logger(__name__)


class LeaseOver(Exception):
    """The lease has ended, or another holds it by now: nothing may be done any more."""


class Transactions(Protocol):
    """Where an organ writes: a database, or one behind the fence of a lease."""

    def transaction(
        self, *, isolation: Isolation | None = None
    ) -> AbstractAsyncContextManager[Connection]:
        """A transaction that commits if the block ends without an error."""
        ...


def elapsed() -> float:
    """Seconds of a clock that nobody sets, and that goes on while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


@dataclass(frozen=True, slots=True)
class Singleton:
    """A row as it was read. ``unheld`` is the seconds since its lease ended, negative before."""

    name: str
    term: int
    node_id: str
    host: str
    unheld: float
    impossible: bool = False

    @property
    def free(self) -> bool:
        """Whether it may be taken."""
        return self.unheld >= 0 or self.impossible


async def read_singletons(connection: Connection) -> list[Singleton]:
    """All rows. Raises what the driver does."""
    return [Singleton(*row) for row in await connection.fetch(_READ, timedelta(seconds=LENGTH))]


class SingletonLease:
    """What a process holds. ``over`` is set when it holds it no longer; ``wanted`` when the
    holder is to end its work and release it, since it is in the share of another node.

    ``acquired`` is when it was taken, to the microsecond: a database that went back in time gives
    out a term again, but not to a holder of the same moment.
    """

    def __init__(
        self,
        name: str,
        term: int,
        acquired: datetime,
        asked: float,
        clock: Callable[[], float],
    ) -> None:
        self.name, self.term, self.acquired = name, term, acquired
        self.over, self.wanted = asyncio.Event(), asyncio.Event()
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self.renewed(asked)

    @property
    def runs(self) -> bool:
        """Whether the holder may go on."""
        if not self.over.is_set() and self._clock() >= self._deadline:
            self.end("not_renewed")
        return not self.over.is_set()

    def renewed(self, asked: float) -> None:
        """It was renewed by a statement that was sent at that time."""
        self._deadline = asked + LENGTH - MARGIN
        if self._timer is not None:
            self._timer.cancel()
        left = max(0.0, self._deadline - self._clock())
        self._timer = asyncio.get_running_loop().call_later(left, self.end, "not_renewed")

    def end(self, reason: str) -> None:
        """It is held no longer."""
        if self._timer is not None:
            self._timer.cancel()
        if not self.over.is_set():
            self.over.set()
            level = _log.info if reason == "released" else _log.warning
            level("lease_over", singleton=self.name, term=self.term, reason=reason)

    async def check(self, connection: Connection) -> None:
        """Let the connection's transaction belong to this term: it commits before another begins.

        Raises LeaseOver.
        """
        if not self.runs:
            raise LeaseOver(f"the lease of {self.name} is over")
        if not await connection.fetchval(_FENCE, self.name, self.term, self.acquired):
            self.end("taken")
            raise LeaseOver(f"term {self.term} of {self.name} is over")


class FencedDatabase:
    """The database as the holder of a lease writes to it: every transaction checks the term."""

    def __init__(self, database: Transactions, lease: SingletonLease) -> None:
        self.lease = lease
        self._database = database
        self._lent: set[Connection] = set()

    def by_way_of(self, database: Transactions) -> FencedDatabase:
        """The same fence around other connections; ``abandon`` cuts them, too."""
        other = FencedDatabase(database, self.lease)
        other._lent = self._lent
        return other

    @contextlib.asynccontextmanager
    async def transaction(self, *, isolation: Isolation | None = None) -> AsyncIterator[Connection]:
        """A transaction of the lease's term. Raises LeaseOver and DatabaseUnavailable."""
        if not self.lease.runs:
            raise LeaseOver(f"the lease of {self.lease.name} is over")
        lent: Connection | None = None
        try:
            async with self._database.transaction(isolation=isolation) as connection:
                lent = connection
                self._lent.add(lent)
                await self.lease.check(connection)
                yield connection
        finally:
            if lent is not None:
                self._lent.discard(lent)

    def abandon(self) -> None:
        """Cut the transactions under way: their answers may never come."""
        for connection in list(self._lent):
            cut_session(connection)


class Leases:
    """The leases of one process: takes those that are wanted and free, and renews them.

    ``node_id`` names the node for good: what an earlier process of the node held is taken at once,
    since a node runs one keeper at a time. ``host`` is what people know the node by.
    """

    def __init__(
        self,
        database: Database,
        node_id: str,
        host: str,
        *,
        clock: Callable[[], float] = elapsed,
        stands_by: bool = False,
    ) -> None:
        self.node_id, self.host = node_id, host
        self._database, self._clock = database, clock
        self._session = OwnSession(database)
        self._held: dict[str, SingletonLease] = {}
        self._wanted: dict[str, asyncio.Future[SingletonLease]] = {}
        self._inherited: set[str] = set()
        # When this process handed a lease over, and when it gave one up as it failed.
        self._handed: dict[str, float] = {}
        self._declined: dict[str, float] = {}
        self._taking: dict[str, asyncio.Task[None]] = {}
        self._stands_by = stands_by
        # The database's time at a moment of our own clock.
        self._known_time = (datetime.now(UTC), clock())

    def now(self) -> datetime:
        """The database's time, as the last renewal told it: whatever this machine's clock says."""
        time_then, then = self._known_time
        return time_then + timedelta(seconds=self._clock() - then)

    async def obtain(self, name: str) -> SingletonLease:
        """The lease of a name, as soon as this process holds it."""
        held = self._held.get(name)
        if held is not None and held.runs:
            return held
        future = self._wanted.get(name)
        if future is None or future.done():
            future = self._wanted[name] = asyncio.get_running_loop().create_future()
        return await asyncio.shield(future)

    @property
    def takes(self) -> Collection[str]:
        """The names that this process would hold now, or holds."""
        if self._stands_by:
            return ()
        since = self._clock() - DECLINED
        failing = {name for name, moment in self._declined.items() if moment > since}
        return sorted((self._wanted.keys() | self._held.keys()) - failing)

    async def decline(self, lease: SingletonLease) -> None:
        """Release it, and leave it to other nodes for some minutes, if any takes it."""
        self._declined[lease.name] = self._clock()
        await self.release(lease)

    async def release(self, lease: SingletonLease) -> None:
        """Let another take it at once. If the database cannot be told, it takes some seconds."""
        self._held.pop(lease.name, None)
        if not lease.runs:
            return
        lease.end("released")
        with contextlib.suppress(Refused):
            await self._session.ask(
                lambda c: c.execute(_RELEASE, lease.name, lease.term, lease.acquired)
            )

    async def stand_by(self, stands_by: bool) -> None:
        """Take nothing, and let go of what is held; or take part again."""
        self._stands_by = stands_by
        if stands_by:
            for lease in list(self._held.values()):
                await self.release(lease)

    async def run(self) -> None:
        """Take and renew until cancelled. Raises DatabaseUnavailable."""
        try:
            while True:
                await self.step()
                await asyncio.sleep(RENEWAL)
        finally:
            self._session.drop()

    async def step(self) -> None:
        """Renew what is held, hand over what others are to hold, and begin to take what is free."""
        await self._renew()
        wanted = [name for name, future in self._wanted.items() if not future.done()]
        if self._stands_by or not (wanted or self._held):
            return
        own = LiveNode(self.node_id, self.host, 0.0, self.takes)
        nodes = with_node(own, await self._session.ask(read_live_nodes))
        self._hand_over(nodes)
        if wanted:
            await self._take_free(wanted, share_out(nodes))

    def _hand_over(self, nodes: Sequence[LiveNode]) -> None:
        """Ask for what is in another node's share to be released; if it comes back, not at once."""
        elsewhere, now = shares_elsewhere(nodes, self.node_id), self._clock()
        for name in self._held.keys() & elsewhere.keys():
            if now - self._handed.get(name, -SETTLED) >= SETTLED:
                self._handed[name] = now
                lease, host = self._held[name], elsewhere[name].host
                _log.info("lease_handed_over", singleton=name, term=lease.term, to=host)
                lease.wanted.set()

    async def _take_free(self, wanted: Sequence[str], shares: Mapping[str, str]) -> None:
        """Begin to take what nobody holds, and this process's last one held."""
        found = {s.name: s for s in await self._session.ask(read_singletons)}
        if not found.keys() >= set(wanted):
            await self._session.ask(lambda c: c.execute(_SEED, wanted))
            found = {s.name: s for s in await self._session.ask(read_singletons)}
        for name in wanted:
            row = found[name]
            inherited = row.node_id == self.node_id and name not in self._inherited
            self._inherited.add(name)
            own = shares.get(name, self.node_id) == self.node_id
            free = row.free and (own or row.unheld >= HEAD_START)
            if (free or inherited) and name not in self._taking:
                task = asyncio.create_task(self._take(row, inherited))
                self._taking[name] = task
                task.add_done_callback(lambda _, name=name: self._taking.pop(name, None))  # type: ignore[misc]

    async def close(self) -> None:
        """Release all that is held."""
        for task in list(self._taking.values()):
            task.cancel()
        await asyncio.gather(*self._taking.values(), return_exceptions=True)
        for lease in list(self._held.values()):
            await self.release(lease)
        self._session.drop()

    async def _renew(self) -> None:
        self._held = {name: lease for name, lease in self._held.items() if lease.runs}
        held = list(self._held.values())
        names, terms = [x.name for x in held], [x.term for x in held]
        moments = [x.acquired for x in held]
        asked = self._clock()
        time_now = await self._session.ask(lambda c: c.fetchval("SELECT clock_timestamp()"))
        self._known_time = (time_now, asked)
        if not held:
            return
        length = timedelta(seconds=LENGTH)
        asked = self._clock()
        rows = await self._session.ask(lambda c: c.fetch(_RENEW, names, terms, length, moments))
        renewed = {row[0] for row in rows}
        for lease in held:
            if lease.name in renewed:
                lease.renewed(asked)
            else:
                lease.end("taken")

    async def _take(self, found: Singleton, inherited: bool) -> None:
        """Raise the term, and end whatever session of an earlier one keeps us from it."""
        asked = self._clock()
        try:
            taken = await self._raise_term(found, inherited)
        except Refused as exc:
            _log.warning("lease_not_taken", singleton=found.name, error=str(exc))
            return
        future = self._wanted.get(found.name)
        if taken is None or future is None or future.done():
            return
        term, acquired = taken
        lease = SingletonLease(found.name, term, acquired, asked, self._clock)
        self._held[found.name] = lease
        _log.info("lease_taken", singleton=found.name, term=term, before=found.host)
        future.set_result(lease)

    async def _raise_term(self, found: Singleton, inherited: bool) -> tuple[int, datetime] | None:
        """The new term and when it began; None if another was faster."""
        length, own = timedelta(seconds=LENGTH), self.node_id if inherited else None
        connection = await self._database.connect()
        watch = asyncio.create_task(self._end_blockers(connection.get_server_pid(), found))
        try:
            with translated():
                async with asyncio.timeout(ANSWER), connection.transaction():
                    if not await connection.fetchval(_ALONE, found.name):
                        return None
                    arguments = (found.name, self.node_id, self.host, length, found.term, own)
                    row = await connection.fetchrow(_TAKE, *arguments)
                    return None if row is None else (row[0], row[1])
        finally:
            watch.cancel()
            connection.terminate()

    async def _end_blockers(self, pid: int, found: Singleton) -> None:
        """End the sessions that keep one for so long from raising the term: they have the row of
        the earlier term locked, and their process is frozen, or cut off from the database."""
        await asyncio.sleep(BLOCKED)
        try:
            rows = await self._session.ask(lambda c: c.fetch(_END_BLOCKERS, pid))
        except Refused as exc:
            _log.warning("sessions_not_ended", singleton=found.name, error=str(exc))
            return
        for row in rows:
            _log.warning("session_ended", singleton=found.name, of=found.host, pid=row[0])
