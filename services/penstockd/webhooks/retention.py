"""How long what was delivered, and what was given up, is kept."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from penstockd.store.singletons import Transactions
from penstockd.webhooks.schedule import Clock

#: How often the old is deleted, in seconds; and how much of it at a time.
INTERVAL = 600.0
CHUNK = 5000

_DELIVERIES = """
WITH old AS (
    DELETE FROM hub.webhook_delivery WHERE delivery_id IN (
        SELECT delivery_id FROM hub.webhook_delivery
        WHERE state IN ('DELIVERED', 'DEAD') AND delivery_id < $1 AND finish_time < $2 LIMIT $3)
    RETURNING delivery_id
), attempts AS (
    DELETE FROM hub.webhook_attempt AS a USING old WHERE a.delivery_id = old.delivery_id
)
SELECT count(*) FROM old
"""
#: Events older than all that deliveries still name.
_EVENTS = """
DELETE FROM hub.webhook_event WHERE commit_time < $1 AND event_id < coalesce(
    (SELECT min(e) FROM hub.webhook_delivery, unnest(event_ids) AS e), 9223372036854775807)
"""
_LISTENERS = "DELETE FROM hub.webhook WHERE kind = 'LISTEN' AND expire_time < $1"
_NOTICES = "DELETE FROM hub.webhook_notice WHERE create_time < $1"


class Retention:
    """Deletes what ended longer ago than ``age``, and endpoints of commands that stopped."""

    def __init__(self, database: Transactions, age: timedelta, clock: Clock) -> None:
        self._database, self._age, self._clock = database, age, clock

    async def run(self) -> None:
        """Delete every INTERVAL until cancelled. Raises DatabaseUnavailable."""
        while True:
            await self.prune()
            await asyncio.sleep(INTERVAL)

    async def prune(self) -> int:
        """Delete what is too old; returns how many deliveries that were."""
        cutoff, count = self._clock() - self._age, 0
        while True:
            async with self._database.transaction() as connection:
                found = await connection.fetchval(_DELIVERIES, _first_id(cutoff), cutoff, CHUNK)
            count += found
            if found < CHUNK:
                break
        async with self._database.transaction() as connection:
            await connection.execute(_LISTENERS, self._clock())
            await connection.execute(_NOTICES, cutoff)
            await connection.execute(_EVENTS, cutoff)
        return int(count)


def _first_id(moment: datetime) -> str:
    """An id that all made before a moment are less than."""
    return f"msg_{int(moment.timestamp() * 1_000_000):014x}"
