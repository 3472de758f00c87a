"""UpdateConsumer: sets some fields of a consumer."""

from __future__ import annotations

from collections.abc import Sequence

from penstockd.access.changes import (
    ChangeTerms,
    change_policy,
    check_mask,
    consumers_document,
    put_diff,
)
from penstockd.access.limits import change_consumer
from penstockd.access.stored import find_consumer
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.policy.admin import StoredConsumer, put_consumer, role_ids
from penstockd.policy.checks import check_consumer
from penstockd.policy.history import PolicyChange
from penstockd.policy.model import Consumer, Permission
from penstockd.policy.plan_admin import plan_ids
from penstockd.policy.plan_checks import LimitsDraft

#: The fields that an update may change.
FIELDS = ("title", "active", "roles", "claims", "plan", "limits")


async def update_consumer(
    hub: Hub,
    call: Call,
    consumer: Consumer,
    limits: LimitsDraft,
    mask: Sequence[str],
    terms: ChangeTerms,
) -> tuple[StoredConsumer, int]:
    """Set a consumer's fields in ``mask``. Raises RecordNotFound, FieldUnknown, ValueInvalid."""
    call.require(Permission.ACCESS_WRITE)
    check_mask(mask, FIELDS)
    key = f"consumers/{consumer.consumer_id}"

    async def update(under_way: PolicyChange) -> StoredConsumer:
        connection = under_way.connection
        before = (await find_consumer(connection, consumer.consumer_id)).consumer
        after = change_consumer(before, consumer, limits, mask, hub.catalog)
        roles, plans = await role_ids(connection), await plan_ids(connection)
        check_consumer(after, roles, "consumer.", plans=plans)
        if after != before:
            await put_consumer(connection, after)
        put_diff(under_way, consumers_document(before), consumers_document(after))
        return await find_consumer(connection, consumer.consumer_id)

    return await change_policy(hub.database, hub.policy, call, key, terms, update)
