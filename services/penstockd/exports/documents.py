"""Sends files of the hub's own, which show no records of datasets, and records how they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from penstockd.calls import Call
from penstockd.errors import ClientStalled, Refused

#: Sends a piece of a file, of so many rows.
SendPiece = Callable[[bytes, int], Awaitable[None]]


@asynccontextmanager
async def sending_document(
    call: Call, stall_seconds: float, send: Callable[[bytes], Awaitable[None]]
) -> AsyncIterator[SendPiece]:
    """Send the pieces of a file in the block; its end is recorded, however it ends.

    Raises ClientStalled if the client takes no piece for ``stall_seconds``.
    """
    rows, size, outcome = 0, 0, "CANCELLED"

    async def send_piece(piece: bytes, count: int) -> None:
        nonlocal rows, size
        try:
            async with asyncio.timeout(stall_seconds):
                await send(piece)
        except TimeoutError as exc:
            raise ClientStalled(f"the client took no data for {stall_seconds:g} s") from exc
        rows, size = rows + count, size + len(piece)
        call.note_sent(rows, size)

    try:
        yield send_piece
        outcome = "OK"
    except Refused as exc:
        outcome = exc.reason
        raise
    finally:
        if call.recorded:
            await call.finish(call.record_end(outcome, rows, size))
