"""Notices that concern no webhook: to operators, which are the consumers that may change access,
for example when the disk of a node runs low, and to single consumers."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from penstockd.policy.snapshot import Policy, PolicySnapshot
from penstockd.store.announcements import Announcements
from penstockd.store.database import Connection
from penstockd.store.fences import Transactions
from penstockd.webhooks.endpoints import announce_due
from penstockd.webhooks.model import Cause, Clock
from penstockd.webhooks.queue import Draft, put_deliveries

#: The disk of a node's data folder has less space than PENSTOCK_DISK_RESERVE_MB, or enough again.
DISK_LOW, DISK_ENOUGH = "hub.disk_low", "hub.disk_enough"
#: Seconds between two looks at the disk.
INTERVAL = 5.0
#: From this multiple of the reserve on there is enough again, so that space that comes and goes is
#: reported once.
_ENOUGH = 1.1

#: The last notice of this node.
_LAST = """
SELECT type FROM hub.webhook_notice WHERE type = ANY ($1) AND data->>'nodeId' = $2
ORDER BY notice_id DESC LIMIT 1
"""
_KEEP = """
INSERT INTO hub.webhook_notice (consumer_id, webhook_id, type, data, create_time)
SELECT consumer_id, '', $2, $3, $4 FROM unnest($1::text[]) AS consumer_id
"""
_HEARERS = """
SELECT webhook_id FROM hub.webhook
WHERE consumer_id = ANY ($1) AND state = 'ACTIVE' AND (options->>'notices')::boolean
"""


class DiskWatch:
    """Watches the disk of one node's data folder, and notifies operators when it runs low, and when
    there is enough space again: once each, even if the node restarts meanwhile.

    ``reserve`` is the number of bytes that should be free. ``named`` names the node in the notice.
    """

    def __init__(
        self,
        database: Transactions,
        policy: Policy,
        announcements: Announcements,
        folder: Path,
        reserve: int,
        named: Mapping[str, str],
        clock: Clock,
        free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        self._database, self._policy, self._announcements = database, policy, announcements
        self._folder, self._reserve, self._named, self._free = folder, reserve, named, free
        self._clock = clock
        self._low: bool | None = None

    async def run(self) -> None:
        """Look every INTERVAL until cancelled. Raises DatabaseUnavailable."""
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL)

    async def look(self) -> None:
        """Check the disk once, and report what has changed. Raises DatabaseUnavailable."""
        free = self._free(self._folder)
        if self._low is None:
            async with self._database.transaction() as connection:
                kinds, node = [DISK_LOW, DISK_ENOUGH], self._named["nodeId"]
                self._low = await connection.fetchval(_LAST, kinds, node) == DISK_LOW
        low = free < self._reserve * (_ENOUGH if self._low else 1)
        if low == self._low:
            return
        content = {
            **self._named,
            "folder": str(self._folder.absolute()),
            "freeBytes": str(free),
            "reserveBytes": str(self._reserve),
        }
        kind = DISK_LOW if low else DISK_ENOUGH
        async with self._database.transaction() as connection:
            at = self._clock()
            if await tell_operators(connection, self._policy.newest, kind, content, at):
                await announce_due(self._announcements, connection)
        self._low = low


async def tell_operators(
    connection: Connection,
    policy: PolicySnapshot,
    kind: str,
    content: Mapping[str, Any],
    at: datetime,
) -> int:
    """Store a notice for every active consumer that may change access (see ``tell_consumers``)."""
    operators = sorted(
        name for name, c in policy.consumers.items() if c.active and policy.administers(c)
    )
    return await tell_consumers(connection, operators, kind, content, at)


async def tell_consumers(
    connection: Connection,
    consumers: Sequence[str],
    kind: str,
    content: Mapping[str, Any],
    at: datetime,
) -> int:
    """Store a notice for each consumer, and queue it for their webhooks that want notices; returns
    for how many webhooks. The connection must be in a transaction."""
    await connection.execute(_KEEP, consumers, kind, orjson.dumps(content).decode(), at)
    rows = await connection.fetch(_HEARERS, consumers)
    drafts = [Draft(row[0], Cause.NOTICE, kind, at, notice=content) for row in rows]
    if drafts:
        await put_deliveries(connection, drafts, at)
    return len(drafts)
