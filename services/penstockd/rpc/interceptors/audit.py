"""Leaves one audit entry a call, denied and failed ones too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from penstockd.rpc.exchange import Exchange
from penstockd.rpc.status import reason_of


@asynccontextmanager
async def audit(exchange: Exchange) -> AsyncIterator[None]:
    """Record the outcome before the call ends; before the first byte, ``Exchange.record`` does.

    A call that was cancelled before it was answered is recorded as CANCELLED, by work that does
    not hang on the call.
    """
    try:
        yield
    except asyncio.CancelledError:
        exchange.call.entry.outcome = "CANCELLED"
        if not exchange.call.recorded:
            await exchange.hub.tasks.run(exchange.record())
        raise
    except Exception as exc:
        exchange.call.entry.outcome = reason_of(exc)
        await exchange.record()
        raise
    await exchange.record()
