"""How a streamed answer ended: its audit entry was durable before anything of it was known."""

from __future__ import annotations

from dataclasses import dataclass

from penstockd.store.database import Database


@dataclass(frozen=True, slots=True)
class Receipt:
    """Rows and bytes that were sent, and the outcome: OK, FAILED or CANCELLED."""

    request_id: str
    row_count: int
    byte_count: int
    outcome: str


async def insert_receipt(database: Database, receipt: Receipt) -> None:
    """Keep a receipt. The first one of a request stands."""
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO hub.receipt (request_id, row_count, byte_count, outcome)"
            " VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            receipt.request_id,
            receipt.row_count,
            receipt.byte_count,
            receipt.outcome,
        )
