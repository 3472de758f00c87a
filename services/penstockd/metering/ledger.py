"""The ledger of allowances in the database: leases of portions, and what is spent of them.

What a consumer used of a limit in a period is one row. Processes lease portions of it, so that a
call costs no round trip of its own, and spend of them in the transaction of the call's audit entry.
A process has a term that it renews. When the term ends, everything that it leased and did not spend
returns, and what it tries to spend afterwards is refused: the foreign key of what is spent is the
fence. So nothing is spent twice, and nothing is lost for longer than a term.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NamedTuple

import asyncpg

from penstockd.policy.errors import AllowanceLost
from penstockd.store.database import Connection, Database, WorkKind

#: How long a term lasts unless it is renewed, and how often it is renewed, in seconds.
TERM, RENEWAL = 10.0, 1.0
#: What has no cap has this one.
ENDLESS = 1 << 62
#: The times of an allowance that belongs to no period.
ALWAYS = dt.datetime(1970, 1, 1, tzinfo=dt.UTC), dt.datetime(9000, 1, 1, tzinfo=dt.UTC)

_OPEN = """
INSERT INTO hub.spender (expire_time) VALUES (clock_timestamp() + $1)
RETURNING spender_id, clock_timestamp()
"""
_RENEW = """
UPDATE hub.spender SET expire_time = clock_timestamp() + $2
WHERE spender_id = $1 AND expire_time > clock_timestamp() RETURNING clock_timestamp()
"""
_LEASE = """
SELECT leased, account, granted, room, elsewhere
FROM hub.lease_allowance($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""
_SPEND = """
INSERT INTO hub.spending (portion_id, amount) SELECT * FROM unnest($1::bigint[], $2::bigint[])
"""
_USED = """
SELECT a.name, a.start_time, (a.used - coalesce((
    SELECT sum(p.held - coalesce((
        SELECT sum(s.amount) FROM hub.spending AS s WHERE s.portion_id = p.portion_id), 0))
    FROM hub.portion AS p WHERE p.allowance_id = a.allowance_id), 0))::bigint
FROM hub.allowance AS a WHERE a.consumer_id = $1 AND a.end_time > $2
"""


_HELD = """
SELECT a.name, a.used FROM hub.allowance AS a WHERE a.consumer_id = $1 AND a.start_time = $2
"""


class AllowanceKey(NamedTuple):
    """An allowance by its consumer, its limit's name, and its period."""

    consumer_id: str
    name: str
    start: dt.datetime
    end: dt.datetime


class Need(NamedTuple):
    """How much of an allowance is needed: ``least`` at once, ``wanted`` by all who wait now, and
    ``ahead`` for those to come. ``asks``: whether others shall return what they do not need of the
    allowance, if there is not enough."""

    least: int
    wanted: int
    ahead: int
    asks: bool = False


class Portion(NamedTuple):
    """What a lease gave: ``room`` is left for anybody, and ``elsewhere`` others hold unspent."""

    portion_id: int
    allowance_id: int
    granted: int
    room: int
    elsewhere: int


class SpikeGrant(NamedTuple):
    """Calls that a rate allows now, what is left, and the seconds until the next if none is."""

    granted: int
    level: float
    pause: float


@dataclass(frozen=True, slots=True)
class Ledger:
    """The ledger as a process uses it. All methods raise DatabaseUnavailable."""

    database: Database

    def _connected(self) -> AbstractAsyncContextManager[Connection]:
        return self.database.connection(WorkKind.OWN)

    async def open(self) -> tuple[int, dt.datetime]:
        """A new spender, and the database's time."""
        async with self._connected() as connection:
            row = await connection.fetchrow(_OPEN, dt.timedelta(seconds=TERM))
        assert row is not None, "an insert returns its row"
        return row[0], row[1]

    async def renew(self, spender: int) -> dt.datetime | None:
        """Renew a spender's term; returns the database's time, None if the term was over."""
        async with self._connected() as connection:
            found: dt.datetime | None = await connection.fetchval(
                _RENEW, spender, dt.timedelta(seconds=TERM)
            )
        return found

    async def lease(
        self, spender: int, account: AllowanceKey, cap: int, need: Need
    ) -> Portion | None:
        """Lease of an allowance; None if the spender's term is over."""
        async with self._connected() as connection:
            row = await connection.fetchrow(_LEASE, spender, *account, cap, *need)
        return None if row is None or row[0] is None else Portion(*row)

    async def spend(self, spends: Mapping[int, int]) -> None:
        """Spend of portions at once, beside any entry. Raises AllowanceLost."""
        try:
            async with self._connected() as connection:
                await connection.execute(_SPEND, list(spends), list(spends.values()))
        except asyncpg.ForeignKeyViolationError as exc:
            raise AllowanceLost("this worker was out of reach for too long; try again") from exc

    async def give_back(self, portion_id: int, amount: int) -> None:
        """Return an amount of a portion that nobody needs."""
        async with self._connected() as connection:
            await connection.execute("SELECT hub.return_allowance($1, $2)", portion_id, amount)

    async def close(self, portion_id: int) -> None:
        """End a portion: what was not spent of it returns."""
        async with self._connected() as connection:
            await connection.execute("SELECT hub.close_portion($1)", portion_id)

    async def end(self, spender: int) -> None:
        """End a spender: what was not spent of its portions returns."""
        async with self._connected() as connection:
            await connection.execute("SELECT hub.end_spender($1)", spender)

    async def take_spike(
        self, consumer_id: str, name: str, rate: float, burst: int, wanted: int
    ) -> SpikeGrant:
        """Take calls of a rate's bucket."""
        async with self._connected() as connection:
            row = await connection.fetchrow(
                "SELECT * FROM hub.take_spike($1, $2, $3, $4, $5)",
                *(consumer_id, name, rate, burst, wanted),
            )
        assert row is not None, "a function returns one row"
        return SpikeGrant(*row)

    async def read_held(self, consumer_id: str) -> Mapping[str, int]:
        """What a consumer has under way, by the names of its limits; places that processes keep
        for its next calls count."""
        async with self._connected() as connection:
            rows = await connection.fetch(_HELD, consumer_id, ALWAYS[0])
        return {row[0]: row[1] for row in rows}

    async def read_used(
        self, consumer_id: str, now: dt.datetime
    ) -> Sequence[tuple[str, dt.datetime, int]]:
        """What a consumer has spent in the periods that are not over: name, start, amount."""
        async with self._connected() as connection:
            rows = await connection.fetch(_USED, consumer_id, now)
        return [(row[0], row[1], row[2]) for row in rows]
