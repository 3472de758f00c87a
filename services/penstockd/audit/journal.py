"""Group commit: entries of concurrent calls share one transaction and so one flush to disk.

The fate of an entry never depends on its neighbours: a refused group is split until only the
refused entries are left, and for each of these a reduced entry is written.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import structlog

from penstockd.audit.entry import Entry, EntryNotKept, insert_entries
from penstockd.audit.shown import KnownDigests, Shown, insert_shown
from penstockd.errors import DatabaseUnavailable, StorageFull
from penstockd.store.database import (
    IDLE_UNCHECKED,
    Connection,
    Database,
    WorkKind,
    gives_sign,
    translate_errors,
)
from penstockd.store.own_session import OwnSessions

#: The most entries in one transaction.
MAX_GROUP = 1000
#: The bytes in one transaction beyond which no further entry joins it.
MAX_GROUP_BYTES = 4 * 1024 * 1024
#: How long an entry may take to become durable before the call is refused, in seconds.
TIMEOUT = 2.0

#: Errors of the database, not of an entry.
_UNAVAILABLE = (DatabaseUnavailable, StorageFull)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An entry that must become durable by ``deadline``, by the event loop's clock."""

    entry: Entry
    done: asyncio.Future[None]
    deadline: float


class Journal:
    """Makes entries durable. One flush runs at a time; entries that arrive meanwhile wait for the
    next."""

    def __init__(self, database: Database, *, timeout: float = TIMEOUT) -> None:
        self._database, self._timeout = database, timeout
        self._sessions = OwnSessions(database)
        self._waiting: list[_Waiting] = []
        self._task: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._answered = 0.0
        self._known = KnownDigests()
        database.memory.when_undone(self._known.clear)
        self._unknown: dict[bytes, Shown] = {}

    async def record(self, entry: Entry) -> None:
        """Return when the entry is on disk.

        Raises DatabaseUnavailable if that takes longer than TIMEOUT, including the wait for other
        groups, or twice TIMEOUT if the store refuses an entry that is written together with it:
        calls that cannot be audited are not answered. If the store refuses the entry itself,
        raises its error after writing a reduced entry in its place.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(entry, done, self._clock() + self._timeout)
        self._waiting.append(waiting)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._flush_all())
        # If the caller leaves, its entry is still written with its group.
        await waiting.done

    def introduce(self, shown: Shown) -> bytes:
        """The digest of what is shown, for an entry; the content is stored before the entry."""
        if shown.digest not in self._known:
            self._unknown[shown.digest] = shown
        return shown.digest

    async def store(self, shown: Shown) -> bytes:
        """Like ``introduce``, but stored on return: for entries that other transactions write.

        Raises DatabaseUnavailable.
        """
        if shown.digest not in self._known:
            async with self._database.connection(WorkKind.OWN) as connection:
                await insert_shown(connection, [shown])
            self._known.add(shown.digest)
        return shown.digest

    async def close(self) -> None:
        """Flush waiting entries and close the connection."""
        if self._task is not None:
            await self._task
        if self._connection is not None:
            await self._connection.close()

    async def _flush_all(self) -> None:
        while self._waiting:
            count = _count_group(self._waiting)
            group, self._waiting = self._waiting[:count], self._waiting[count:]
            begun = self._clock()
            try:
                entries, rules = [w.entry for w in group], dict(self._unknown)
                try:
                    await self._write(entries, group[0].deadline, rules)
                except _UNAVAILABLE:
                    raise
                except Exception as exc:  # the fault of one entry, which must not fail the others
                    _log.warning("audit_group_refused", entries=len(group), error=repr(exc))
                    deadline = self._clock() + self._timeout
                    await self._write_apart(group, await self._store_rules(deadline), deadline)
            except _UNAVAILABLE as exc:
                self._drop_connection()
                if isinstance(exc, StorageFull) or self._clock() - begun >= self._timeout / 2:
                    # Entries that arrived meanwhile would find the database in the same state.
                    group, self._waiting = group + self._waiting, []
                _mark_failed(group, exc)
            except BaseException as exc:  # the process ends
                _mark_failed(group + self._waiting, exc)
                raise
            else:
                for waiting in group:
                    _mark_written(waiting)

    async def _write_apart(
        self, group: Sequence[_Waiting], refused: Set[bytes], deadline: float
    ) -> None:
        """Write the entries of a refused group by halves, down to those that cause the refusal.
        These fail, and leave reduced entries. Raises DatabaseUnavailable, also if all of that is
        not done by ``deadline``, and StorageFull."""
        middle = max(1, len(group) // 2)
        for part in (group[:middle], group[middle:]):
            if len(part) > 1:
                try:
                    await self._write([w.entry for w in part], deadline, {}, refused)
                except _UNAVAILABLE:
                    raise
                except Exception:  # see above
                    await self._write_apart(part, refused, deadline)
                    continue
            elif part:
                try:
                    await self._write_or_reduce(part[0].entry, refused, deadline)
                except _UNAVAILABLE:
                    raise
                except Exception as exc:
                    _mark_failed(part, exc)
            for waiting in part:
                _mark_written(waiting)

    async def _store_rules(self, deadline: float) -> set[bytes]:
        """Store new rules one by one; returns the digests of refused ones."""
        refused: set[bytes] = set()
        for digest, shown in list(self._unknown.items()):
            try:
                await self._write([], deadline, {digest: shown})
            except _UNAVAILABLE:
                break  # writing the entries will raise it again
            except Exception as exc:
                _log.error("audit_rule_refused", digest=digest.hex(), error=repr(exc))
                self._unknown.pop(digest, None)
                refused.add(digest)
        return refused

    async def _write_or_reduce(self, entry: Entry, refused: Set[bytes], deadline: float) -> None:
        """Write one entry; if the store refuses it, write a reduced one and raise its error."""
        try:
            return await self._write([entry], deadline, {}, refused)
        except _UNAVAILABLE:
            raise
        except Exception as exc:
            _log.error(
                "audit_entry_refused",
                request_id=entry.request_id,
                method=entry.method,
                consumer=entry.consumer_id,
                error=repr(exc),
            )
            suppressed = isinstance(exc, EntryNotKept)
            reduced = entry.reduced(type(exc).__name__, suppressed=suppressed)
            await self._write([reduced], deadline, {})
            raise

    async def _write(
        self,
        entries: list[Entry],
        deadline: float,
        rules: Mapping[bytes, Shown],
        refused: Set[bytes] = frozenset(),
    ) -> None:
        """Write rules first, so that no entry names a missing one; each in its own transaction.

        Uses the journal's own connection, so that reads never starve it. Raises EntryNotKept if an
        entry names one of the ``refused`` rules.
        """
        if refused and any(entry.shown in refused for entry in entries):
            raise EntryNotKept("the rule by which records were shown cannot be stored")
        with translate_errors():
            async with asyncio.timeout_at(deadline):
                connection = await self._connected()
                if rules:
                    await insert_shown(connection, list(rules.values()))
                    for digest in rules:
                        self._known.add(digest)
                        self._unknown.pop(digest, None)
                if entries:
                    await insert_entries(connection, entries)
        self._answered = time.monotonic()

    async def _connected(self) -> Connection:
        """The connection; probes one that was silent for a while, since it may be dead."""
        known = self._connection
        if known is not None and not known.is_closed():
            silent = time.monotonic() - self._answered
            if silent < IDLE_UNCHECKED or await gives_sign(known):
                return known
        self._connection = await self._sessions.open()
        return self._connection

    def _clock(self) -> float:
        return asyncio.get_running_loop().time()

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._sessions.cut(self._connection)
            self._connection = None


def _count_group(waiting: Sequence[_Waiting]) -> int:
    """How many of the entries share the next transaction: few if they are large, but never none."""
    size = 0
    for count, each in enumerate(waiting[:MAX_GROUP]):
        size += each.entry.size
        if size > MAX_GROUP_BYTES and count:
            return count
    return min(len(waiting), MAX_GROUP)


def _mark_written(waiting: _Waiting) -> None:
    if not waiting.done.done():
        waiting.done.set_result(None)


def _mark_failed(group: Sequence[_Waiting], error: BaseException) -> None:
    for waiting in group:
        if not waiting.done.done():
            waiting.done.set_exception(error)
            waiting.done.exception()  # retrieved here, in case the caller has gone
