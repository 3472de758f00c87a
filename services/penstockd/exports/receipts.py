"""Receipts of exports. An export is incomplete unless it has a receipt with COMPLETE.

A receipt is in the database before the first byte of its export leaves, and work that does not
depend on the call closes it.
"""

from __future__ import annotations

import enum
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

import orjson

from penstockd.store.cursor import Cursor
from penstockd.store.database import Database, WorkKind
from penstockd.store.places import Places
from penstockd.store.snapshots import Held

#: The reason of a receipt whose worker has died.
LOST = "EXPORT_NOT_RESUMABLE"


class ReceiptState(enum.StrEnum):
    """The state of an export; CANCELLED means that its client left."""

    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


@dataclass(slots=True)
class Receipt:
    """One export. ``row_count``, ``record_count``, ``byte_count`` and ``sha256`` cover the file
    without an in-band receipt; for an incomplete export, the counts cover what was sent, and there
    is no digest. A record has several rows if a shape makes rows of a list. ``lossy_cells`` says of
    a complete export how many cells do not hold their values exactly, by column. ``snapshot`` is
    None once the export cannot be resumed.
    """

    receipt_id: str
    request_id: str
    consumer_id: str
    dataset: str
    format: str
    request_digest: bytes
    policy_revision: int
    cursor: Cursor | None
    start_time: datetime
    state: ReceiptState = ReceiptState.RUNNING
    reason: str = ""
    row_count: int = 0
    byte_count: int = 0
    sha256: bytes | None = None
    finish_time: datetime | None = None
    resume_count: int = 0
    snapshot: str | None = None
    record_count: int = 0
    lossy_cells: Mapping[str, int] = field(default_factory=dict)

    def sealed(self, places: Places) -> str:
        """The sealed cursor, for readers of the receipt; "" without one."""
        return "" if self.cursor is None else places.seal(self.cursor)

    def document(self, places: Places) -> dict[str, Any]:
        """The content of an in-band receipt, as proto JSON."""
        document: dict[str, Any] = {
            "receiptId": self.receipt_id,
            "dataset": self.dataset,
            "state": self.state.value,
            "reason": self.reason,
            "cursor": self.sealed(places),
            "rowCount": str(self.row_count),
            "recordCount": str(self.record_count),
            "byteCount": str(self.byte_count),
            "sha256": self.sha256.hex() if self.sha256 is not None else "",
            "policyRevision": str(self.policy_revision),
        }
        return {name: value for name, value in document.items() if value != ""}


#: The columns of a receipt, in the order of its fields.
_COLUMNS = tuple(field.name for field in fields(Receipt))


def new_receipt_id() -> str:
    """A new unguessable id."""
    return f"r{secrets.token_hex(16)}"


async def open_receipt(database: Database, receipt: Receipt, held: Held) -> None:
    """Make a receipt durable, as RUNNING on the held state."""
    receipt.snapshot = held.name
    await _insert_receipt(database, receipt, held.session.pid, held.session.start)


async def store_receipt(database: Database, receipt: Receipt) -> None:
    """Write the receipt of a stream of changes, which is known only at the end of the stream."""
    await _insert_receipt(database, receipt, 0, receipt.start_time)


async def _insert_receipt(database: Database, receipt: Receipt, pid: int, start: datetime) -> None:
    """Write all fields of a new receipt, and the session that holds its state."""
    values = {name: getattr(receipt, name) for name in _COLUMNS}
    values["lossy_cells"] = _dump_counts(receipt)
    values |= {"session_pid": pid, "session_start": start}
    values["cursor"] = "" if receipt.cursor is None else receipt.cursor.stored
    places = ", ".join(f"${i}" for i in range(1, len(values) + 1))
    sql = f"INSERT INTO hub.receipt ({', '.join(values)}) VALUES ({places})"
    async with database.connection(WorkKind.OWN) as connection:
        await connection.execute(sql, *values.values())


async def reopen_receipt(database: Database, receipt: Receipt, held: Held) -> None:
    """Make an interrupted export RUNNING again, for a holder that has joined its state.

    From now on the interrupted call cannot change the receipt, even if it still runs.
    """
    async with database.connection(WorkKind.OWN) as connection:
        receipt.resume_count = await connection.fetchval(
            "UPDATE hub.receipt SET state = 'RUNNING', reason = '', row_count = 0, byte_count = 0,"
            " record_count = 0, lossy_cells = '{}', sha256 = NULL, finish_time = NULL,"
            " resume_count = resume_count + 1,"
            " snapshot = $2, session_pid = $3, session_start = $4"
            " WHERE receipt_id = $1 RETURNING resume_count",
            receipt.receipt_id,
            held.name,
            held.session.pid,
            held.session.start,
        )
    receipt.state, receipt.reason, receipt.sha256 = ReceiptState.RUNNING, "", None
    receipt.snapshot, receipt.finish_time = held.name, None
    receipt.row_count = receipt.record_count = receipt.byte_count = 0
    receipt.lossy_cells = {}


async def close_receipt(database: Database, receipt: Receipt) -> None:
    """Write how the export ended, unless another call has resumed it."""
    receipt.finish_time = datetime.now(UTC)
    async with database.connection(WorkKind.OWN) as connection:
        await connection.execute(
            "UPDATE hub.receipt SET state = $3, reason = $4, row_count = $5, byte_count = $6,"
            " sha256 = $7, finish_time = $8, snapshot = $9, record_count = $10, lossy_cells = $11"
            " WHERE receipt_id = $1 AND resume_count = $2",
            receipt.receipt_id,
            receipt.resume_count,
            receipt.state.value,
            receipt.reason,
            receipt.row_count,
            receipt.byte_count,
            receipt.sha256,
            receipt.finish_time,
            receipt.snapshot,
            receipt.record_count,
            _dump_counts(receipt),
        )


def _dump_counts(receipt: Receipt) -> str:
    return orjson.dumps(receipt.lossy_cells).decode()


async def find_receipt(database: Database, receipt_id: str) -> Receipt | None:
    """The receipt with the id; it reads as FAILED if it is RUNNING but its worker is gone."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            f"SELECT {', '.join(_COLUMNS)},"
            " EXISTS (SELECT FROM pg_stat_activity AS a WHERE a.pid = session_pid"
            "         AND a.backend_start = session_start)"
            " FROM hub.receipt WHERE receipt_id = $1",
            receipt_id,
        )
    if row is None:
        return None
    *values, held = row
    receipt = Receipt(*values)
    receipt.cursor = Cursor.parse(row["cursor"]) if row["cursor"] else None
    receipt.lossy_cells = orjson.loads(row["lossy_cells"])
    receipt.state = ReceiptState(receipt.state)
    if receipt.state is ReceiptState.RUNNING and not held:
        receipt.state, receipt.reason = ReceiptState.FAILED, LOST
    return receipt
