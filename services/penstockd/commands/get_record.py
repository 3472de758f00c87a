"""Get: one record by its key."""

from __future__ import annotations

from google.protobuf.message import Message

from penstockd.calls import Call
from penstockd.catalog import Dataset
from penstockd.errors import RecordNotFound, RecordUnreadable
from penstockd.hub import Hub
from penstockd.policy.model import Action
from penstockd.policy.read import Get
from penstockd.policy.rendering import record_of
from penstockd.policy.unreadable import find_extreme, name_unreadable


async def get_record(hub: Hub, call: Call, dataset: Dataset, key: str, fields: str) -> Message:
    """The record with ``key`` as the caller sees it, all its fields or those listed in ``fields``.

    Raises PermissionDenied, FieldUnknown, and RecordNotFound for a record that does not exist or
    that the caller may not see, and RecordUnreadable.
    """
    view = call.view(dataset, Action.READ)
    call.entry.record_key = key
    call.asked(fields=fields)
    query = view.prepared(Get, fields)

    async def find() -> RecordUnreadable | None:
        async with hub.database.connection() as connection:
            return await find_extreme(connection, view, query.codec.fields, key=key)

    async with name_unreadable(find), hub.database.connection() as connection:
        row = await connection.fetchrow(query.statement.text, *query.statement.arguments(key=key))
    if row is None:
        raise RecordNotFound(f"{dataset.singular} '{key}' does not exist")
    call.disclose_one(call.rule(view, fields))
    return await record_of(query.codec, tuple(row))
