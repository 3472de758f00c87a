"""DeleteConsumer: deletes a consumer and its credentials."""

from __future__ import annotations

from penstockd.access.changes import ChangeTerms, change_policy, consumers_document, put_diff
from penstockd.access.stored import find_consumer
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.policy.admin import remove_consumer
from penstockd.policy.history import PolicyChange


async def delete_consumer(hub: Hub, call: Call, consumer_id: str, terms: ChangeTerms) -> None:
    """Delete a consumer and its credentials. Raises RecordNotFound."""
    key = f"consumers/{consumer_id}"

    async def delete(under_way: PolicyChange) -> None:
        found = await find_consumer(under_way.connection, consumer_id)
        await remove_consumer(under_way.connection, consumer_id)
        put_diff(under_way, consumers_document(found.consumer), consumers_document())

    await change_policy(hub.database, hub.policy, call, key, terms, delete)
