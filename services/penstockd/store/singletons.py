"""Leases for work that only one process of all nodes may do at a time.

A lease is a row: a name, a term that rises with each new holder, and a time at which it ends unless
renewed. Only the database's clock decides whether it has ended. What a holder writes is fenced by
its term (see ``fences``). Raising the term waits for transactions that have the row locked; the new
holder ends the sessions of those that take too long.

Nodes share the leases (see ``sharing``): a holder hands over leases in another node's share, and a
free lease is reserved for a moment for the node in whose share it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog

from penstockd.errors import Refused
from penstockd.store.database import Connection, Database, translate_errors
from penstockd.store.fences import SingletonLease, elapsed_seconds
from penstockd.store.own_session import ANSWER, OwnSession, OwnSessions
from penstockd.store.sharing import (
    HEAD_START,
    SETTLED,
    LiveNode,
    read_live_nodes,
    share_out,
    shares_elsewhere,
    with_node,
)
from penstockd.store.singleton_rows import (
    LENGTH,
    Holder,
    Singleton,
    note_failure,
    note_recovery,
    read_singletons,
)

#: Seconds between two renewals of a lease.
RENEWAL = 1.0
#: How long a transaction of an earlier term may delay the next term, in seconds.
BLOCKED = 0.5
#: Seconds for which a node leaves a task that failed repeatedly to other nodes.
DECLINED = 300.0

_SEED = """
INSERT INTO hub.singleton (name, term, node_id, host, acquire_time, expire_time)
SELECT name, 0, '', '', clock_timestamp(), clock_timestamp() FROM unnest($1::text[]) AS n (name)
ON CONFLICT DO NOTHING
"""
#: An expire_time later than any renewal could set means that the clock has since gone back.
_TAKE = """
UPDATE hub.singleton SET term = term + 1, node_id = $2, host = $3, instance = $7,
       acquire_time = clock_timestamp(), expire_time = clock_timestamp() + $4
WHERE name = $1 AND term = $5 AND (instance = $6 AND node_id = $2
                                   OR expire_time <= clock_timestamp()
                                   OR expire_time > clock_timestamp() + $4)
RETURNING term, acquire_time
"""
_RENEW = """
UPDATE hub.singleton AS s SET expire_time = clock_timestamp() + $3
FROM unnest($1::text[], $2::bigint[], $4::timestamptz[]) AS h (name, term, acquire_time)
WHERE s.name = h.name AND s.term = h.term AND s.acquire_time = h.acquire_time
  AND s.node_id = $5 AND s.instance = $6 AND s.expire_time > clock_timestamp()
RETURNING s.name
"""
_RELEASE = """
UPDATE hub.singleton SET expire_time = clock_timestamp()
WHERE name = $1 AND term = $2 AND acquire_time = $3 AND node_id = $4 AND instance = $5
"""
_ALONE = "SELECT pg_try_advisory_xact_lock(hashtext('penstock.singleton'), hashtext($1))"
#: A lock of the session that lasts as long as the instance, for others to see: it ends at once
#: with the process, and with a lost network when the server notices.
_SHOW_LIFE = (
    "SELECT pg_advisory_lock_shared(hashtext('penstock.instance'), hashtext($1)) IS NOT NULL"
)
_ALIVE = """
SELECT EXISTS (
    SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 2
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND classid::bigint = hashtext('penstock.instance')::bigint & 4294967295
      AND objid::bigint = hashtext($1)::bigint & 4294967295)
"""
_END_BLOCKERS = """
SELECT pid, pg_terminate_backend(pid) FROM unnest(pg_blocking_pids($1)) AS b (pid)
"""

_log = structlog.get_logger(__name__)


class Leases:
    """The leases of one process: takes wanted leases when free, and renews them.

    ``node_id`` identifies the node permanently, and ``holder`` this process: leases of an earlier
    process of the node are taken at once if its session with the database has ended. ``host`` is
    the name for people.
    """

    def __init__(
        self,
        database: Database,
        node_id: str,
        host: str,
        *,
        clock: Callable[[], float] = elapsed_seconds,
        stands_by: bool = False,
    ) -> None:
        self.node_id, self.host = node_id, host
        self._clock = clock
        self.holder = Holder(node_id, secrets.token_hex(8))
        self._session = OwnSession(database, self._show_life)
        self._sessions = OwnSessions(database)
        self._held: dict[str, SingletonLease] = {}
        self._wanted: dict[str, asyncio.Future[SingletonLease]] = {}
        # Other instances of the node that were alive when this one checked.
        self._twins: set[str] = set()
        # When this process handed a lease over, and when it gave one up because its work failed.
        self._handed: dict[str, float] = {}
        self._declined: dict[str, float] = {}
        self._taking: dict[str, asyncio.Task[None]] = {}
        self._stands_by = stands_by
        # The database's time, and our own clock at that moment.
        self._known_time = (datetime.now(UTC), clock())

    def now(self) -> datetime:
        """The database's time, projected from the last renewal; ignores this machine's wall
        clock."""
        time_then, then = self._known_time
        return time_then + timedelta(seconds=self._clock() - then)

    async def obtain(self, name: str) -> SingletonLease:
        """Wait until this process holds the lease of a name, and return it."""
        held = self._held.get(name)
        if held is not None and held.runs:
            return held
        future = self._wanted.get(name)
        if future is None or future.done():
            future = self._wanted[name] = asyncio.get_running_loop().create_future()
        return await asyncio.shield(future)

    @property
    def takes(self) -> Collection[str]:
        """The names that this process holds or would take now."""
        if self._stands_by:
            return ()
        since = self._clock() - DECLINED
        failing = {name for name, moment in self._declined.items() if moment > since}
        return sorted((self._wanted.keys() | self._held.keys()) - failing)

    async def decline(self, lease: SingletonLease) -> None:
        """Release a lease and leave it to other nodes for DECLINED seconds, if any takes it."""
        self._declined[lease.name] = self._clock()
        await self.release(lease)

    async def release(self, lease: SingletonLease) -> None:
        """Let others take a lease at once, or within seconds if the database is unreachable."""
        self._held.pop(lease.name, None)
        if not lease.runs:
            return
        lease.end("released")
        with contextlib.suppress(Refused):
            await self._session.ask(lambda c: c.execute(_RELEASE, *lease.key))

    async def report_failure(self, name: str, error: str, seconds: float) -> None:
        """Tell all nodes that a task has failed for a number of seconds, if the database
        answers."""
        with contextlib.suppress(Refused):
            await self._session.ask(lambda c: note_failure(c, name, error, seconds))

    async def report_recovery(self, name: str) -> None:
        """Tell all nodes that a task works, if the database answers."""
        with contextlib.suppress(Refused):
            await self._session.ask(lambda c: note_recovery(c, name))

    async def stand_by(self, stands_by: bool) -> None:
        """Release all leases and take none, or take part again."""
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
        """Renew held leases, hand over those in others' shares, and begin to take free ones."""
        await self._renew()
        wanted = [name for name, future in self._wanted.items() if not future.done()]
        if self._stands_by or not (wanted or self._held):
            return
        own = LiveNode(*self.holder, self.host, 0.0, self.takes)
        nodes = with_node(own, await self._session.ask(read_live_nodes))
        self._hand_over(nodes)
        if wanted:
            await self._take_free(wanted, share_out(nodes))

    def _hand_over(self, nodes: Sequence[LiveNode]) -> None:
        """Ask the holder to release leases in others' shares; at most once per SETTLED seconds."""
        elsewhere, now = shares_elsewhere(nodes, self.holder), self._clock()
        for name in self._held.keys() & elsewhere.keys():
            if now - self._handed.get(name, -SETTLED) >= SETTLED:
                self._handed[name] = now
                lease, host = self._held[name], elsewhere[name].host
                _log.info("lease_handed_over", singleton=name, term=lease.term, to=host)
                lease.wanted.set()

    async def _take_free(self, wanted: Sequence[str], shares: Mapping[str, Holder]) -> None:
        """Begin to take leases that nobody holds, or that this node's last process held."""
        found = {s.name: s for s in await self._session.ask(read_singletons)}
        if not found.keys() >= set(wanted):
            await self._session.ask(lambda c: c.execute(_SEED, wanted))
            found = {s.name: s for s in await self._session.ask(read_singletons)}
        for name in wanted:
            row = found[name]
            inherited = not row.free and await self._is_left_behind(row.holder)
            own = shares.get(name, self.holder) == self.holder
            free = row.free and (own or row.unheld >= HEAD_START)
            if (free or inherited) and name not in self._taking:
                task = asyncio.create_task(self._take(row, inherited))
                self._taking[name] = task
                task.add_done_callback(lambda _, name=name: self._taking.pop(name, None))  # type: ignore[misc]

    async def _is_left_behind(self, holder: Holder) -> bool:
        """Whether a holder is an earlier process of this node that ended without notice.

        An instance that was ever seen alive is another node with this node's id: its leases end
        like those of any other node.
        """
        if holder.node_id != self.node_id or holder.instance in self._twins:
            return False
        if await self._session.ask(partial(is_alive, holder.instance)):
            self._twins.add(holder.instance)
            return False
        return holder != self.holder

    async def close(self) -> None:
        """Release all leases."""
        for task in list(self._taking.values()):
            task.cancel()
        await asyncio.gather(*self._taking.values(), return_exceptions=True)
        for lease in list(self._held.values()):
            await self.release(lease)
        self._session.drop()

    async def _show_life(self, connection: Connection) -> None:
        await show_life(self.holder.instance, connection)

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
        arguments = (names, terms, length, moments, *self.holder)
        asked = self._clock()
        rows = await self._session.ask(lambda c: c.fetch(_RENEW, *arguments))
        renewed = {row[0] for row in rows}
        for lease in held:
            if lease.name in renewed:
                lease.renewed(asked)
            else:
                lease.end("taken")

    async def _take(self, found: Singleton, inherited: bool) -> None:
        """Raise the term, ending sessions of an earlier term that block it."""
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
        lease = SingletonLease(found.name, term, acquired, asked, self._clock, self.holder)
        self._held[found.name] = lease
        _log.info("lease_taken", singleton=found.name, term=term, before=found.host)
        future.set_result(lease)

    async def _raise_term(self, found: Singleton, inherited: bool) -> tuple[int, datetime] | None:
        """The new term and when it began; None if another process was faster."""
        length, before = timedelta(seconds=LENGTH), found.instance if inherited else None
        node_id, instance = self.holder
        connection = await self._sessions.open()
        watch = asyncio.create_task(self._end_blockers(connection.get_server_pid(), found))
        try:
            with translate_errors():
                async with asyncio.timeout(ANSWER), connection.transaction():
                    if not await connection.fetchval(_ALONE, found.name):
                        return None
                    arguments = (found.name, node_id, self.host, length, found.term, before)
                    row = await connection.fetchrow(_TAKE, *arguments, instance)
                    return None if row is None else (row[0], row[1])
        except BaseException:
            self._sessions.cut(connection)
            raise
        finally:
            watch.cancel()
            connection.terminate()

    async def _end_blockers(self, pid: int, found: Singleton) -> None:
        """After BLOCKED seconds, end the sessions that block raising the term: they have the row of
        the earlier term locked, and their process is frozen or cut off from the database."""
        await asyncio.sleep(BLOCKED)
        try:
            rows = await self._session.ask(lambda c: c.fetch(_END_BLOCKERS, pid))
        except Refused as exc:
            _log.warning("sessions_not_ended", singleton=found.name, error=str(exc))
            return
        for row in rows:
            _log.warning("session_ended", singleton=found.name, of=found.host, pid=row[0])


async def show_life(instance: str, connection: Connection) -> None:
    """Show that an instance lives, for as long as this session lasts (see ``is_alive``)."""
    await connection.fetchval(_SHOW_LIFE, instance)


async def is_alive(instance: str, connection: Connection) -> bool:
    """Whether an instance has a session with the database; one of an earlier version never has."""
    return bool(await connection.fetchval(_ALIVE, instance))
