"""One task produces while another consumes, and neither outlives the other's failure."""

from __future__ import annotations

import asyncio
from typing import TypeVar

T = TypeVar("T")


async def next_item(queue: asyncio.Queue[T], producer: asyncio.Task[None]) -> T:
    """The next item of the queue; raises what the producer raised if nothing more will come."""
    if not queue.empty():
        return queue.get_nowait()
    getting = asyncio.ensure_future(queue.get())
    try:
        await asyncio.wait({getting, producer}, return_when=asyncio.FIRST_COMPLETED)
        if getting.done():
            return getting.result()
    finally:
        getting.cancel()
    producer.result()
    return queue.get_nowait()
