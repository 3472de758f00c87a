"""States of the data that stay readable, for exports on several connections and for resuming them.

A transaction on a connection of its own holds a state and exports it by name; any connection of any
process can join it for as long as the holder lives. A holder that is kept in case its client
returns is released after ``seconds``, or earlier if newer ones need its place: it holds back
vacuuming. Therefore no state is held for longer than ``most_seconds`` since it was taken, however
often its client returns; a read at that time ends with StateGone.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import structlog

from penstockd.errors import Refused
from penstockd.shares import payer_var
from penstockd.store.ages import read_until
from penstockd.store.cursor import Cursor, current_cursor, place_snapshot
from penstockd.store.database import Connection, Database, WorkKind, gives_sign, translate_errors
from penstockd.store.servers import ServerSession
from penstockd.store.session import session_of

#: The most states that a process keeps for clients that may return; the oldest of the consumer with
#: the most is released first.
MAX_KEPT = 6
#: Idle connections that are kept for the next state to hold.
MAX_IDLE = 2
#: How often each holder sends a query to stay alive, in seconds.
PULSE = 10.0
#: How long a holder may be silent before the database ends it, in seconds.
SILENCE = 60
#: How long one statement of a holder may take, in seconds.
PATIENCE = 5.0
#: A state is old after this part of the longest time: the log and health report it.
OLD = 0.5

_log = structlog.get_logger(__name__)


class SnapshotGone(Exception):
    """Nobody holds the state of that name any more, or the name now stands for another state."""


@dataclass(eq=False, slots=True)
class Held:
    """One state of the data: ``name`` joins it, ``cursor`` is its place in the change log.

    ``session`` is that of its holder, which ends with the holder's process.
    ``taken`` is when the state was taken, by whichever process, in seconds of the system's clock.
    ``end`` is when it may be held no longer, after ``most_seconds``, by the monotonic clock.
    """

    name: str
    cursor: Cursor
    session: ServerSession
    connection: Connection
    taken: float
    end: float
    most_seconds: float
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    deadline: float | None = None  # monotonic; None while it is in use
    lasting: bool = True  # kept states that are not lasting are released first
    by_receipt: bool = True  # keep it only while a receipt names it
    consumer: str = field(default_factory=lambda: payer_var.get().consumer)
    old: bool = False  # it was logged as old

    def in_time(self) -> AbstractAsyncContextManager[None]:
        """Read the state in the block. Raises StateGone once it may no longer be held."""
        return read_until(self.end, self.most_seconds)

    async def share(self, connection: Connection) -> None:
        """Make a transaction that has just begun, and read nothing, see this state.

        Raises SnapshotGone if its holder has died.
        """
        await _import_snapshot(connection, self.name)

    async def fetch(self, sql: str, *arguments: Any) -> Sequence[Any]:
        """Query this state on the holder's own connection."""
        async with self.lock:
            return await self.connection.fetch(sql, *arguments)


class Snapshots:
    """The states that one process holds."""

    def __init__(self, database: Database, *, seconds: float, most_seconds: float) -> None:
        """``seconds`` is the time for which a state is kept in case its client returns, and
        ``most_seconds`` the time for which it is held in all."""
        self.seconds, self.most_seconds = seconds, most_seconds
        self._database = database
        self._held: set[Held] = set()
        self._idle: list[Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._pulse: asyncio.Task[None] | None = None

    async def take(self) -> Held:
        """Hold the current state. Raises DatabaseUnavailable."""
        connection = await self._connection()
        try:
            with translate_errors():
                async with asyncio.timeout(PATIENCE):
                    cursor = await place_snapshot(connection)
                    return await self._hold(connection, cursor, time.time())
        except BaseException:
            connection.terminate()
            raise

    async def join(self, name: str, cursor: Cursor, taken: float) -> Held:
        """Hold a state that some process already holds since the time ``taken``.

        Raises SnapshotGone, also if ``name`` stands for a state other than ``cursor``'s or it has
        been held for too long, and DatabaseUnavailable.
        """
        if taken + self.most_seconds <= time.time():
            raise SnapshotGone(name)
        connection = await self._connection()
        try:
            with translate_errors():
                async with asyncio.timeout(PATIENCE):
                    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    await _import_snapshot(connection, name)
                    if await current_cursor(connection) != cursor:
                        raise SnapshotGone(name)
                    return await self._hold(connection, cursor, taken)
        except BaseException:
            connection.terminate()
            raise

    def holds(self, held: Held) -> bool:
        """Whether a state has been neither released nor lost."""
        return held in self._held and not held.connection.is_closed()

    @property
    def oldest_seconds(self) -> float:
        """The age of the oldest state that this process holds; 0 if it holds none."""
        first = min((held.end for held in self._held), default=None)
        return 0.0 if first is None else self.most_seconds - (first - time.monotonic())

    @property
    def any_old(self) -> bool:
        """Whether a state has been held so long that an operator should know."""
        return self.oldest_seconds >= OLD * self.most_seconds

    def keep(self, held: Held, *, seconds: float | None = None, lasting: bool = True) -> None:
        """Keep a state after use, since the client may return for it."""
        if held.connection.is_closed():
            self._held.discard(held)
            return
        seconds = min(self.seconds if seconds is None else seconds, held.end - time.monotonic())
        held.deadline = time.monotonic() + seconds
        held.lasting = lasting
        while len(kept := [h for h in self._held if h.deadline is not None]) > MAX_KEPT:
            # From the consumer with the most kept states, so that nobody's exports cost others
            # theirs.
            counts = Counter(h.consumer for h in kept)
            self.release(min(kept, key=lambda h: (-counts[h.consumer], h.lasting, h.deadline)))

    def release(self, held: Held) -> None:
        """Release a state that nobody needs any more."""
        if held in self._held:
            self._held.discard(held)
            self._start(self._let_go(held))

    def drop(self, held: Held) -> None:
        """Release a state and end its session."""
        self._held.discard(held)
        held.connection.terminate()

    def forget(self, name: str) -> None:
        """Release the state of that name if this process keeps it: another holder has joined it."""
        for held in [h for h in self._held if h.name == name and h.deadline is not None]:
            self.release(held)

    async def close(self) -> None:
        """Release everything."""
        if self._pulse is not None:
            self._pulse.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)  # each takes PATIENCE at most
        for connection in [*(h.connection for h in self._held), *self._idle]:
            connection.terminate()
        self._held.clear()
        self._idle.clear()

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed() and await gives_sign(connection):
                return connection
        return await self._database.connect()

    async def _hold(self, connection: Connection, cursor: Cursor, taken: float) -> Held:
        await connection.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{SILENCE}s'")
        name = await connection.fetchval("SELECT pg_export_snapshot()")
        left = taken + self.most_seconds - time.time()
        end = time.monotonic() + min(left, self.most_seconds)
        held = Held(name, cursor, session_of(connection), connection, taken, end, self.most_seconds)
        self._held.add(held)
        if self._pulse is None or self._pulse.done():
            self._pulse = asyncio.create_task(self._keep_alive())
        return held

    async def _let_go(self, held: Held) -> None:
        try:
            async with asyncio.timeout(PATIENCE), held.lock:
                await held.connection.execute("ROLLBACK")
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
            _log.info("holder_lost", error=repr(exc))
            held.connection.terminate()
            return
        if len(self._idle) < MAX_IDLE:
            self._idle.append(held.connection)
        else:
            held.connection.terminate()

    async def _keep_alive(self) -> None:
        """Query on every holder and release states that nobody will ask for, until nothing is
        held."""
        while self._held:
            await asyncio.sleep(PULSE)
            now = time.monotonic()
            for held in list(self._held):
                if held.connection.is_closed():
                    self._held.discard(held)
                elif held.deadline is not None and held.deadline <= now:
                    self.release(held)
                elif held.end + PULSE <= now:
                    # Its reader has been ended; this makes sure of it.
                    _log.warning("snapshot_dropped", consumer=held.consumer)
                    self.drop(held)
                else:
                    self._watch_age(held)
                    self._start(self._speak(held))
            try:
                await self._release_superseded()
            except Refused as exc:
                _log.warning("snapshots_unchecked", error=str(exc))

    def _watch_age(self, held: Held) -> None:
        """Log once that a state is old."""
        seconds = self.most_seconds - (held.end - time.monotonic())
        if not held.old and seconds >= OLD * self.most_seconds:
            held.old = True
            _log.warning(
                "snapshot_old",
                consumer=held.consumer,
                seconds=round(seconds),
                most_seconds=round(self.most_seconds),
            )

    async def _speak(self, held: Held) -> None:
        if held.lock.locked():
            return  # a running query shows the server that it lives
        try:
            async with asyncio.timeout(PATIENCE), held.lock:
                await held.connection.execute("SELECT 1")
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
            _log.info("holder_lost", error=repr(exc))
            self._held.discard(held)
            held.connection.terminate()

    async def _release_superseded(self) -> None:
        """Release states of exports that another process continues: they have a holder there."""
        kept = {h.name: h for h in self._held if h.deadline is not None and h.by_receipt}
        if not kept:
            return
        async with self._database.connection(WorkKind.OWN) as connection:
            rows = await connection.fetch(
                "SELECT snapshot FROM hub.receipt WHERE snapshot = ANY ($1::text[])", list(kept)
            )
        for name in kept.keys() - {row[0] for row in rows}:
            self.release(kept[name])

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _import_snapshot(connection: Connection, name: str) -> None:
    try:
        await connection.execute(f"SET TRANSACTION SNAPSHOT '{_check_name(name)}'")
    except (asyncpg.UndefinedObjectError, asyncpg.InvalidParameterValueError) as exc:
        raise SnapshotGone(name) from exc
    except asyncpg.ObjectNotInPrerequisiteStateError as exc:  # its transaction has just ended
        raise SnapshotGone(name) from exc


def _check_name(name: str) -> str:
    """The name, if it has the form of a snapshot's name; SET takes no parameters. Raises
    SnapshotGone."""
    if not name or not set(name) <= set("0123456789ABCDEF-"):
        raise SnapshotGone(name)
    return name
