"""Notices to consumers that do not concern one webhook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from penstockd.store.database import Connection
from penstockd.webhooks.model import Cause
from penstockd.webhooks.queue import Draft, put_deliveries

_KEEP = """
INSERT INTO hub.webhook_notice (consumer_id, webhook_id, type, data, create_time)
SELECT consumer_id, '', $2, $3, $4 FROM unnest($1::text[]) AS consumer_id
"""
_HEARERS = """
SELECT webhook_id FROM hub.webhook
WHERE consumer_id = ANY ($1) AND state = 'ACTIVE' AND (options->>'notices')::boolean
"""


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
