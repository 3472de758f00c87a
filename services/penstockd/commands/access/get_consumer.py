"""GetConsumer: one consumer, with the policy revision."""

from __future__ import annotations

from penstockd.access.stored import find_consumer
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.policy.admin import StoredConsumer
from penstockd.policy.history import policy_revision
from penstockd.policy.model import Permission


async def get_consumer(hub: Hub, call: Call, consumer_id: str) -> tuple[StoredConsumer, int]:
    """One consumer and the policy revision. Raises RecordNotFound."""
    call.require(Permission.ACCESS_READ)
    call.entry.record_key = f"consumers/{consumer_id}"
    async with hub.database.connection() as connection:
        revision = await policy_revision(connection)
        found = await find_consumer(connection, consumer_id)
    call.entry.row_count = 1
    return found, revision
