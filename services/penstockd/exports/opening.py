"""Begins exports: holds a state of the data and makes a receipt durable."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from penstockd.calls import Call, ReadingOrgans
from penstockd.errors import ExportNotResumable, ReceiptNotFound
from penstockd.exports.plan import ExportPlan
from penstockd.exports.receipts import (
    Receipt,
    find_receipt,
    new_receipt_id,
    open_receipt,
    reopen_receipt,
)
from penstockd.store.cursor import Cursor
from penstockd.store.database import Database
from penstockd.store.snapshots import Held, SnapshotGone, Snapshots


class OpeningOrgans(ReadingOrgans, Protocol):
    """The organs for beginning an export."""

    @property
    def snapshots(self) -> Snapshots:
        """Holds the states of the data."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An export that has begun. ``durable`` completes when its receipt is in the database."""

    held: Held
    receipt: Receipt
    durable: asyncio.Task[None]


async def find_earlier(
    database: Database, call: Call, plan: ExportPlan, receipt_id: str
) -> Receipt:
    """An export that has begun. ``durable`` completes when its receipt is in the database."""
    receipt = await find_receipt(database, receipt_id)
    if receipt is None or receipt.consumer_id != call.entry.consumer_id:
        raise ReceiptNotFound(f"there is no receipt '{receipt_id[:80]}'")
    if receipt.request_digest != plan.digest:
        raise ExportNotResumable(
            "the request is not the one that began the export, or your access has changed; "
            "start again"
        )
    return receipt


async def open_export(organs: OpeningOrgans, call: Call, plan: ExportPlan) -> Opened:
    """Begin an export on the current state. Raises DatabaseUnavailable."""
    held = await organs.snapshots.take()
    receipt = _new_receipt(call, plan, held.cursor)
    writing = open_receipt(organs.database, receipt, held)
    call.entry.receipt_id = receipt.receipt_id
    # The write runs beside the read: the receipt need only be durable before the first byte leaves.
    return Opened(held, receipt, asyncio.create_task(call.finish(writing)))


async def resume_export(organs: OpeningOrgans, call: Call, receipt: Receipt) -> Opened:
    """Resume an export on the state with which it began.

    Raises ExportNotResumable if the state is no longer kept, and DatabaseUnavailable.
    """
    earlier = receipt.snapshot
    try:
        if earlier is None:
            raise SnapshotGone("it was let go")
        assert receipt.cursor is not None, "an export has one"
        taken = receipt.start_time.timestamp()
        held = await organs.snapshots.join(earlier, receipt.cursor, taken)
    except SnapshotGone as exc:
        raise ExportNotResumable(
            "the state of the data that the export began with is no longer kept; start again"
        ) from exc
    organs.snapshots.forget(earlier)
    writing = reopen_receipt(organs.database, receipt, held)
    call.entry.receipt_id = receipt.receipt_id
    return Opened(held, receipt, asyncio.create_task(call.finish(writing)))


def _new_receipt(call: Call, plan: ExportPlan, cursor: Cursor) -> Receipt:
    return Receipt(
        receipt_id=new_receipt_id(),
        request_id=call.entry.request_id,
        consumer_id=call.entry.consumer_id or "",
        dataset=plan.view.dataset.name,
        format=plan.export.format,
        request_digest=plan.digest,
        policy_revision=plan.view.revision,
        cursor=cursor,
        start_time=datetime.now(UTC),
    )
