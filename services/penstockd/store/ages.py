"""The age that a state of the data may reach while somebody reads it.

A transaction that sees one state keeps the database from cleaning up what was deleted since, so
tables grow. A read of a state that takes too long is ended.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from penstockd.errors import StateGone


@asynccontextmanager
async def read_until(end: float, most_seconds: float) -> AsyncIterator[None]:
    """Read a state in the block. Raises StateGone at ``end``, a time of the monotonic clock, which
    is ``most_seconds`` after the state was taken."""
    left = max(0.0, end - time.monotonic())
    timeout = asyncio.timeout(None if math.isinf(left) else left)
    try:
        async with timeout:
            yield
    except TimeoutError as exc:
        if not timeout.expired():
            raise
        raise StateGone(
            f"a state of the data is kept for {most_seconds:g} s at most; start again, and ask "
            "for less or read faster"
        ) from exc
