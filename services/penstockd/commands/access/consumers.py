"""Consumers: list, get, create, update, delete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from penstockd.calls import Call
from penstockd.commands.access.change import Terms, changed, consumers_document, tell
from penstockd.commands.access.pages import Paging
from penstockd.errors import RecordExists, RecordNotFound
from penstockd.hub import Hub
from penstockd.policy.admin import (
    StoredConsumer,
    put_consumer,
    read_consumer,
    read_consumers,
    remove_consumer,
    role_ids,
)
from penstockd.policy.checks import check_consumer
from penstockd.policy.history import Change, policy_revision
from penstockd.policy.model import Consumer, Permission
from penstockd.query import FieldUnknown
from penstockd.store.database import Connection

#: What an update may change.
FIELDS = ("title", "active", "roles", "claims")


async def list_consumers(
    hub: Hub, call: Call, page_size: int, page_token: str
) -> tuple[list[StoredConsumer], str, int]:
    """A page of consumers, the token of the next, the policy revision."""
    call.require(Permission.ACCESS_READ)
    paging = Paging(hub, call, "consumers", page_size, page_token)
    after = paging.position[0] if paging.position else ""
    async with hub.database.connection() as connection:
        revision = await policy_revision(connection)
        found = await read_consumers(connection, after, paging.limit)
    return *paging.cut(found, lambda c: c.consumer.consumer_id), revision


async def get_consumer(hub: Hub, call: Call, consumer_id: str) -> tuple[StoredConsumer, int]:
    """One consumer and the policy revision. Raises RecordNotFound."""
    call.require(Permission.ACCESS_READ)
    call.entry.record_key = f"consumers/{consumer_id}"
    async with hub.database.connection() as connection:
        revision = await policy_revision(connection)
        found = await found_consumer(connection, consumer_id)
    call.entry.row_count = 1
    return found, revision


async def create_consumer(
    hub: Hub, call: Call, consumer: Consumer, terms: Terms
) -> tuple[StoredConsumer, int]:
    """Create a consumer. Raises RecordExists and ValueInvalid."""

    async def create(under_way: Change) -> StoredConsumer:
        name, connection = consumer.consumer_id, under_way.connection
        check_consumer(consumer, await role_ids(connection), "consumer.")
        if await read_consumer(connection, name) is not None:
            raise RecordExists(f"consumer '{name}' exists already")
        await put_consumer(connection, consumer)
        tell(under_way, consumers_document(), consumers_document(consumer))
        return await found_consumer(connection, name)

    return await changed(hub, call, f"consumers/{consumer.consumer_id}", terms, create)


async def update_consumer(
    hub: Hub, call: Call, consumer: Consumer, mask: Sequence[str], terms: Terms
) -> tuple[StoredConsumer, int]:
    """Set what ``mask`` names of a consumer. Raises RecordNotFound, FieldUnknown, ValueInvalid."""

    async def update(under_way: Change) -> StoredConsumer:
        connection = under_way.connection
        before = (await found_consumer(connection, consumer.consumer_id)).consumer
        after = replace(before, **{name: getattr(consumer, name) for name in mask})
        check_consumer(after, await role_ids(connection), "consumer.")
        if after != before:
            await put_consumer(connection, after)
        tell(under_way, consumers_document(before), consumers_document(after))
        return await found_consumer(connection, consumer.consumer_id)

    call.require(Permission.ACCESS_WRITE)
    for path in mask:
        if path not in FIELDS:
            raise FieldUnknown(path)
    return await changed(hub, call, f"consumers/{consumer.consumer_id}", terms, update)


async def delete_consumer(hub: Hub, call: Call, consumer_id: str, terms: Terms) -> None:
    """Delete a consumer and its credentials. Raises RecordNotFound."""

    async def delete(under_way: Change) -> None:
        found = await found_consumer(under_way.connection, consumer_id)
        await remove_consumer(under_way.connection, consumer_id)
        tell(under_way, consumers_document(found.consumer), consumers_document())

    await changed(hub, call, f"consumers/{consumer_id}", terms, delete)


async def found_consumer(connection: Connection, consumer_id: str) -> StoredConsumer:
    """The consumer with this id. Raises RecordNotFound."""
    found = await read_consumer(connection, consumer_id)
    if found is None:
        raise RecordNotFound(f"consumer '{consumer_id}' does not exist")
    return found
