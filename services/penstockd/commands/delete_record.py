"""Delete: one record."""

from __future__ import annotations

from penstockd.catalog import Dataset
from penstockd.commands.context import Call, Hub
from penstockd.policy.model import Action


async def delete_record(hub: Hub, call: Call, dataset: Dataset, key: str, etag: str) -> None:
    """Delete the record with ``key``. Raises PermissionDenied, RecordNotFound, EtagMismatch."""
    view = call.view(dataset, Action.DELETE)
    call.entry.record_key = key

    async def write() -> None:
        async with hub.writer.transaction() as transaction:
            await transaction.delete(dataset, key, view.guard, etag=etag)
            await call.audit_within(transaction, 1)

    await hub.tasks.run(write())
