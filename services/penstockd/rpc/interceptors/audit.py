"""Writes one audit entry for each call, denied and failed ones included."""

from __future__ import annotations

import asyncio
from typing import Any

from penstockd.answers.status import reason_of
from penstockd.errors import DatabaseUnavailable, OutcomeUnknown, StorageFull
from penstockd.rpc.exchange import Exchange, Proceed


async def audit_call(exchange: Exchange, proceed: Proceed) -> Any:
    """Record the outcome before the call ends; streams are recorded before their first byte.

    A call that was cancelled before its reply is recorded as CANCELLED, in a task that does not
    depend on the call.
    """
    try:
        reply = await proceed(exchange)
    except asyncio.CancelledError:
        if not exchange.arriving.recorded:
            exchange.arriving.entry.outcome = "CANCELLED"
            await exchange.hub.tasks.run(exchange.record())
        raise
    except Exception as exc:
        exchange.arriving.entry.outcome = reason_of(exc)
        try:
            await exchange.record()
        except (DatabaseUnavailable, StorageFull):
            # The caller must learn that its write may stand, whatever happened to this entry.
            if not isinstance(exc, OutcomeUnknown):
                raise
        raise
    await exchange.record()
    return reply
