"""Counts calls and their time, for the node's metrics."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from penstockd.answers.status import reason_of
from penstockd.observe.metrics import find_counter, find_gauge, find_histogram
from penstockd.rpc.exchange import Exchange, Proceed


async def measure_call(exchange: Exchange, proceed: Proceed) -> Any:
    """Count the call by its outcome, and take its time unless its reply is a stream."""
    method, open_calls = exchange.method, find_gauge("penstock_calls_open")
    outcome, began = "OK", time.perf_counter()
    open_calls.inc()
    try:
        return await proceed(exchange)
    except asyncio.CancelledError:
        outcome = "CANCELLED"
        raise
    except Exception as error:
        outcome = reason_of(error)
        raise
    finally:
        open_calls.dec()
        surface = exchange.arriving.entry.surface or ""
        find_counter("penstock_calls_total", method.path, surface, outcome).inc()
        if not method.streams:
            seconds = time.perf_counter() - began
            find_histogram("penstock_call_seconds", method.path).observe(seconds)
