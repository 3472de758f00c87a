"""CreateConsumer: a new consumer, without credentials yet."""

from __future__ import annotations

from dataclasses import replace

from penstockd.access.changes import ChangeTerms, change_policy, consumers_document, put_diff
from penstockd.access.stored import find_consumer
from penstockd.calls import Call
from penstockd.errors import RecordExists
from penstockd.hub import Hub
from penstockd.policy.admin import StoredConsumer, put_consumer, read_consumer, role_ids
from penstockd.policy.checks import check_consumer
from penstockd.policy.history import PolicyChange
from penstockd.policy.model import Consumer
from penstockd.policy.plan_admin import plan_ids
from penstockd.policy.plan_checks import LimitsDraft, checked_limits


async def create_consumer(
    hub: Hub, call: Call, consumer: Consumer, limits: LimitsDraft, terms: ChangeTerms
) -> tuple[StoredConsumer, int]:
    """Create a consumer with limits of its own. Raises RecordExists and ValueInvalid."""
    key = f"consumers/{consumer.consumer_id}"

    async def create(under_way: PolicyChange) -> StoredConsumer:
        name, connection = consumer.consumer_id, under_way.connection
        made = replace(consumer, limits=checked_limits(limits, hub.catalog))
        roles, plans = await role_ids(connection), await plan_ids(connection)
        check_consumer(made, roles, "consumer.", plans=plans)
        if await read_consumer(connection, name) is not None:
            raise RecordExists(f"consumer '{name}' exists already")
        await put_consumer(connection, made)
        put_diff(under_way, consumers_document(), consumers_document(made))
        return await find_consumer(connection, name)

    return await change_policy(hub.database, hub.policy, call, key, terms, create)
