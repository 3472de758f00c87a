"""Get: one record by its key."""

from __future__ import annotations

from typing import TypeVar

from penstockd.calls import Call
from penstockd.catalog import Dataset
from penstockd.errors import RecordNotFound
from penstockd.hub import Hub
from penstockd.policy.model import Action
from penstockd.policy.pages import read_record
from penstockd.policy.rendering import Render

T = TypeVar("T")


async def get_record(
    hub: Hub, call: Call, dataset: Dataset, key: str, fields: str, render: Render[T]
) -> T:
    """The record with ``key`` as the caller sees it, all its fields or those listed in ``fields``,
    as ``render`` makes it.

    Raises PermissionDenied, FieldUnknown, and RecordNotFound for a record that does not exist or
    that the caller may not see, and RecordUnreadable.
    """
    view = call.view(dataset, Action.READ)
    call.entry.record_key = key
    call.asked(fields=fields)
    record = await read_record(hub.database, view, key, fields, render)
    if record is None:
        raise RecordNotFound(f"{dataset.singular} '{key}' does not exist")
    await call.disclose_one(call.rule(view, fields))
    return record
